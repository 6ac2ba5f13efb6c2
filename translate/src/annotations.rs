//! What the annotations of a ScaledObject mean. A pure function of the annotations as they are now, never of an old status.

use std::collections::BTreeMap;

use dormouse_api::labels;
use dormouse_core::Pause;

use crate::Refusal;

/// A boolean annotation, as KEDA reads it: absent is false, what Go's ParseBool knows is that, and anything else is true.
#[must_use]
pub fn is_truthy(annotations: &BTreeMap<String, String>, key: &str) -> bool {
    annotations
        .get(key)
        .is_some_and(|value| !matches!(value.as_str(), "0" | "f" | "F" | "FALSE" | "false" | "False"))
}

/// The pause in force. `paused-replicas` wins over `paused`, and both over the directional annotations.
///
/// # Errors
/// `paused-replicas` is no whole number from 0 to 2147483647.
pub fn pause(annotations: &BTreeMap<String, String>) -> Result<Pause, Refusal> {
    if let Some(text) = annotations.get(labels::PAUSED_REPLICAS) {
        let replicas = text
            .parse::<i32>()
            .ok()
            .and_then(|replicas| u32::try_from(replicas).ok());
        let Some(replicas) = replicas else {
            return Err(Refusal::new(format!(
                "annotation {} is {text:?}: a whole number from 0 to {} is accepted",
                labels::PAUSED_REPLICAS,
                i32::MAX
            )));
        };
        return Ok(Pause::Full {
            replicas: Some(replicas),
        });
    }
    if is_truthy(annotations, labels::PAUSED) {
        return Ok(Pause::Full { replicas: None });
    }
    let scale_in = is_truthy(annotations, labels::PAUSED_SCALE_IN);
    let scale_out = is_truthy(annotations, labels::PAUSED_SCALE_OUT);
    Ok(if scale_in || scale_out {
        Pause::Directions { scale_in, scale_out }
    } else {
        Pause::No
    })
}

/// The pause that holds, also where it cannot be read in full: whoever writes `paused-replicas`, however wrongly, wants
/// scaling to stop, and so it stops where it is.
#[must_use]
pub fn pause_in_force(annotations: &BTreeMap<String, String>) -> Pause {
    pause(annotations).unwrap_or(Pause::Full { replicas: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn anything_but_a_clear_no_is_a_yes() {
        for (value, expected) in [
            ("true", true),
            ("1", true),
            ("T", true),
            ("", true),
            ("yes", true),
            ("off", true),
            ("false", false),
            ("0", false),
            ("F", false),
        ] {
            assert_eq!(is_truthy(&of(&[("a", value)]), "a"), expected, "{value:?}");
        }
        assert!(!is_truthy(&of(&[]), "a"));
    }

    #[test]
    fn precedence() {
        let replicas = (labels::PAUSED_REPLICAS, "3");
        let scale_in = (labels::PAUSED_SCALE_IN, "true");
        for (annotations, expected) in [
            (of(&[]), Pause::No),
            (of(&[(labels::PAUSED, "true")]), Pause::Full { replicas: None }),
            (
                of(&[(labels::PAUSED, "false"), replicas]),
                Pause::Full { replicas: Some(3) },
            ),
            (of(&[replicas, scale_in]), Pause::Full { replicas: Some(3) }),
            (
                of(&[(labels::PAUSED, "false"), scale_in]),
                Pause::Directions {
                    scale_in: true,
                    scale_out: false,
                },
            ),
            (
                of(&[scale_in, (labels::PAUSED_SCALE_OUT, "1")]),
                Pause::Directions {
                    scale_in: true,
                    scale_out: true,
                },
            ),
        ] {
            assert_eq!(pause(&annotations), Ok(expected), "{annotations:?}");
        }
    }

    /// Every combination of the four annotations, each absent, clearly on, clearly off, empty and nonsense.
    #[test]
    fn all_combinations() {
        let switches = [None, Some("true"), Some("false"), Some(""), Some("nonsense")];
        let counts = [None, Some("0"), Some("3"), Some(""), Some("-1"), Some("nonsense")];
        let is_on = |value: Option<&str>| !matches!(value, None | Some("false"));
        let mut seen = 0;
        for count in counts {
            for paused in switches {
                for scale_in in switches {
                    for scale_out in switches {
                        let all = [
                            (labels::PAUSED_REPLICAS, count),
                            (labels::PAUSED, paused),
                            (labels::PAUSED_SCALE_IN, scale_in),
                            (labels::PAUSED_SCALE_OUT, scale_out),
                        ];
                        let set: Vec<(&str, &str)> = all
                            .into_iter()
                            .filter_map(|(key, value)| Some((key, value?)))
                            .collect();
                        let annotations = of(&set);
                        let expected = match (count, is_on(paused), is_on(scale_in), is_on(scale_out)) {
                            (Some("0"), ..) => Some(Pause::Full { replicas: Some(0) }),
                            (Some("3"), ..) => Some(Pause::Full { replicas: Some(3) }),
                            (Some(_), ..) => None,
                            (None, true, ..) => Some(Pause::Full { replicas: None }),
                            (None, false, false, false) => Some(Pause::No),
                            (None, false, scale_in, scale_out) => {
                                Some(Pause::Directions { scale_in, scale_out })
                            }
                        };
                        assert_eq!(pause(&annotations).ok(), expected, "{annotations:?}");
                        let in_force = expected.unwrap_or(Pause::Full { replicas: None });
                        assert_eq!(pause_in_force(&annotations), in_force, "{annotations:?}");
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 6 * 125);
    }

    #[test]
    fn paused_replicas_must_be_a_count() {
        for bad in ["", "x", "-1", "1.5", "99999999999"] {
            let refusal = pause(&of(&[(labels::PAUSED_REPLICAS, bad)])).unwrap_err();
            assert!(refusal.message.contains("paused-replicas"), "{refusal}");
        }
    }
}
