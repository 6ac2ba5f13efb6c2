//! Whether a text is a label selector, so that a typo is told when the object is made and not by a failing poll.

/// Checks a selector as the API server would.
///
/// # Errors
/// The requirement that is wrong, and what is accepted.
pub(super) fn check(selector: &str) -> Result<(), String> {
    requirements(selector)?.into_iter().try_for_each(requirement)
}

/// Splits at the commas outside of parentheses.
fn requirements(selector: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in selector.char_indices() {
        match c {
            '(' if inside => return Err(format!("{selector:?} has a parenthesis within parentheses")),
            '(' => inside = true,
            ')' if !inside => return Err(format!("{selector:?} closes a parenthesis that was not opened")),
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("{selector:?} lacks a closing parenthesis"));
    }
    parts.push(&selector[start..]);
    Ok(parts)
}

fn requirement(text: &str) -> Result<(), String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "{text:?} is no requirement: key=value, key!=value, key in (a, b), key notin (a, b), key, !key, key>1 or key<9 is accepted"
        )
    };
    if let Some(absent) = text.strip_prefix('!') {
        return key(absent.trim());
    }
    if let Some(open) = text.find('(') {
        let values = text[open + 1..].strip_suffix(')').ok_or_else(wrong)?;
        let mut words = text[..open].split_whitespace();
        let (name, operator) = (words.next().ok_or_else(wrong)?, words.next());
        if !matches!(operator, Some("in" | "notin")) || words.next().is_some() {
            return Err(wrong());
        }
        key(name)?;
        return values.split(',').try_for_each(|each| value(each.trim()));
    }
    for operator in ["!=", "==", "=", ">", "<"] {
        let Some((name, right)) = text.split_once(operator) else {
            continue;
        };
        key(name.trim())?;
        let right = right.trim();
        return match operator {
            ">" | "<" if right.parse::<i64>().is_err() => Err(wrong()),
            _ => value(right),
        };
    }
    if text.is_empty() {
        return Err(wrong());
    }
    key(text)
}

fn key(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if is_name(name) && prefix.is_none_or(is_subdomain) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is no label key: an optional DNS subdomain and a slash, then 1 to 63 letters, digits, '-', '_' or '.', \
         beginning and ending with a letter or digit"
    ))
}

fn value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_name(text) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is no label value: at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or \
         digit"
    ))
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= 63
        && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_subdomain(text: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= 253
        && text
            .split('.')
            .all(|label| is_name(label) && label.bytes().all(lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_requirement() {
        for good in [
            "app=frontend",
            "app==frontend",
            "app!=frontend",
            "app = frontend , tier",
            "app in (a, b),tier notin (c)",
            "app in (a,)",
            "!app",
            "! app",
            "app",
            "example.com/app.kubernetes-io_name=x",
            "app=",
            "size>1,size<9",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_wrong_is_shown() {
        for (bad, expected) in [
            ("app=a,", "\"\" is no requirement"),
            ("app in a", "\"app in a\" is no label key"),
            ("app within (a)", "\"app within (a)\" is no requirement"),
            ("app in (a", "lacks a closing parenthesis"),
            ("app in (a))", "closes a parenthesis"),
            ("app in ((a))", "within parentheses"),
            ("in (a)", "is no requirement"),
            ("app=a b", "\"a b\" is no label value"),
            ("=a", "\"\" is no label key"),
            ("size<-5", "is no label value"),
            ("size>many", "\"size>many\" is no requirement"),
            ("-app=a", "\"-app\" is no label key"),
            ("Example.com/app=a", "is no label key"),
            ("a/b/c=d", "is no label key"),
        ] {
            let fault = check(bad).unwrap_err();
            assert!(fault.contains(expected), "{bad}: {fault}");
        }
    }
}
