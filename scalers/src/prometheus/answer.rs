//! The answer of Prometheus' query API.

use serde::Deserialize;
use serde_json::Value;

/// What an answer holds.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// A finite number.
    Number(f64),
    /// No number; and the sentence for those to whom that is a failure.
    Nothing(String),
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    #[serde(default)]
    result_type: String,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
struct Element {
    #[serde(default)]
    value: Vec<Value>,
}

/// The one number in an answer to `query`.
///
/// # Errors
/// One sentence about an answer that has another shape.
pub(super) fn value(body: &[u8], query: &str) -> Result<Found, String> {
    let no_sense = || format!("the answer to prometheus query {query} is not one of Prometheus' query API");
    let Answer { data } = serde_json::from_slice(body).map_err(|_| no_sense())?;
    let sample = match data.result_type.as_str() {
        "matrix" | "string" => {
            return Err(format!(
                "prometheus query {query} returned a {}: an instant vector of one element or a scalar is accepted",
                data.result_type
            ));
        }
        "scalar" => serde_json::from_value(data.result).map_err(|_| no_sense())?,
        _ => {
            let elements: Option<Vec<Element>> =
                serde_json::from_value(data.result).map_err(|_| no_sense())?;
            let mut elements = elements.unwrap_or_default().into_iter();
            match (elements.next(), elements.next()) {
                (None, _) => return Ok(nothing("result is empty")),
                (Some(_), Some(_)) => {
                    return Err(format!("prometheus query {query} returned multiple elements"));
                }
                (Some(only), None) => only.value,
            }
        }
    };
    number(&sample, query)
}

/// The number of a `[time, "number"]`.
fn number(sample: &[Value], query: &str) -> Result<Found, String> {
    let text = match sample {
        [] => return Ok(nothing("value list is empty")),
        [_] => return Err(format!("prometheus query {query} didn't return enough values")),
        [_, Value::Null, ..] => return Ok(nothing("value is null")),
        [_, value, ..] => value
            .as_str()
            .ok_or_else(|| format!("prometheus query {query} returned a value that is no text"))?,
    };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Found::Number(number)),
        Ok(number) => {
            let name = match (number.is_nan(), number.is_sign_positive()) {
                (true, _) => "NaN",
                (false, true) => "+Inf",
                (false, false) => "-Inf",
            };
            Ok(Found::Nothing(format!("prometheus query returns {name}")))
        }
        Err(_) => Err(format!(
            "prometheus query {query} returned a value that is no number"
        )),
    }
}

fn nothing(what: &str) -> Found {
    Found::Nothing(format!(
        "prometheus metrics 'prometheus' target may be lost, the {what}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(result: &str) -> Result<Found, String> {
        let body = format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#);
        value(body.as_bytes(), "up")
    }

    fn lost(what: &str) -> Result<Found, String> {
        Ok(Found::Nothing(format!(
            "prometheus metrics 'prometheus' target may be lost, the {what}"
        )))
    }

    #[test]
    fn one_element_is_a_number_or_none() {
        for (result, expected) in [
            (
                r#"[{"metric":{"a":"b"},"value":[1700000000.1,"2.5"]}]"#,
                Ok(Found::Number(2.5)),
            ),
            (r#"[{"value":[1,"-1e3"]}]"#, Ok(Found::Number(-1000.0))),
            (
                r#"[{"value":[1,"9223372036854775808"]}]"#,
                Ok(Found::Number(9_223_372_036_854_775_808.0)),
            ),
            (
                r#"[{"value":[1,"NaN"]}]"#,
                Ok(Found::Nothing("prometheus query returns NaN".into())),
            ),
            (
                r#"[{"value":[1,"+Inf"]}]"#,
                Ok(Found::Nothing("prometheus query returns +Inf".into())),
            ),
            (
                r#"[{"value":[1,"-Inf"]}]"#,
                Ok(Found::Nothing("prometheus query returns -Inf".into())),
            ),
            // Beyond what a float holds.
            (
                r#"[{"value":[1,"1e999"]}]"#,
                Ok(Found::Nothing("prometheus query returns +Inf".into())),
            ),
            ("[]", lost("result is empty")),
            ("null", lost("result is empty")),
            (r#"[{"metric":{}}]"#, lost("value list is empty")),
            (r#"[{"value":[]}]"#, lost("value list is empty")),
            (r#"[{"value":[1,null]}]"#, lost("value is null")),
            (
                r#"[{"value":[1]}]"#,
                Err("prometheus query up didn't return enough values".into()),
            ),
            (
                r#"[{"value":[1,"1"]},{"value":[1,"1"]}]"#,
                Err("prometheus query up returned multiple elements".into()),
            ),
            (
                r#"[{"value":[1,"many"]}]"#,
                Err("prometheus query up returned a value that is no number".into()),
            ),
            (
                r#"[{"value":[1,7]}]"#,
                Err("prometheus query up returned a value that is no text".into()),
            ),
        ] {
            assert_eq!(vector(result), expected, "{result}");
        }
    }

    #[test]
    fn other_types_of_result() {
        let of = |kind: &str, result: &str| {
            value(
                format!(r#"{{"data":{{"resultType":"{kind}","result":{result}}}}}"#).as_bytes(),
                "q",
            )
        };
        assert_eq!(of("scalar", r#"[1700000000,"4"]"#), Ok(Found::Number(4.0)));
        assert_eq!(
            of("scalar", r#"[1700000000,"NaN"]"#),
            Ok(Found::Nothing("prometheus query returns NaN".into()))
        );
        for kind in ["matrix", "string"] {
            let fault = of(kind, "[]").unwrap_err();
            assert!(
                fault.starts_with(&format!("prometheus query q returned a {kind}")),
                "{fault}"
            );
        }
        for body in [
            "<html>",
            "{}",
            r#"{"data":7}"#,
            r#"{"data":{"result":7}}"#,
            "[]",
            "",
        ] {
            let fault = value(body.as_bytes(), "q").unwrap_err();
            assert!(
                fault.contains("is not one of Prometheus' query API"),
                "{body}: {fault}"
            );
        }
    }
}
