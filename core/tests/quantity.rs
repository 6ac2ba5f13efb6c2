//! Quantities against the golden vectors of the Go implementation, and properties that hold for any text.

use dormouse_core::Quantity;
use proptest::prelude::*;
use serde_json::Value;

/// Where Go repeats the spelling it read although it is not its own canonical form; ours is always canonical, so that
/// equal values are written alike.
const SPELLING_KEPT_BY_GO: [(&str, &str); 6] = [
    ("1.", "1"),
    ("1E3", "1e3"),
    ("+7", "7"),
    ("00012", "12"),
    ("33.333", "33333m"),
    ("66.666666", "66666666u"),
];

/// Where Go's 64-bit results wrap around or collapse to 0; ours end at the bound, because a demand too large to be
/// written down must not be read as none.
const WRAPPED_BY_GO: [(&str, i64, i64); 7] = [
    ("1E", 1_000_000_000_000_000_000, i64::MAX),
    ("1Ei", 1_152_921_504_606_846_976, i64::MAX),
    ("8Ei", i64::MAX, i64::MAX),
    ("9E", 9_000_000_000_000_000_000, i64::MAX),
    ("9223372036854775807", i64::MAX, i64::MAX),
    ("9223372036854775808", i64::MAX, i64::MAX),
    ("99999999999999999999", i64::MAX, i64::MAX),
];

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/quantity.json")).expect("the vectors are JSON")
}

#[test]
fn parsing_agrees_with_go() {
    let vectors = vectors();
    let cases = vectors["parse"].as_array().unwrap();
    assert_eq!(cases.len(), 81);
    let mut exceptions = 0;
    for case in cases {
        let text = case["in"].as_str().unwrap();
        let parsed = Quantity::parse(text);
        if case["error"] == true {
            assert!(parsed.is_err(), "{text:?} was taken for {parsed:?}");
            continue;
        }
        let quantity = parsed.unwrap_or_else(|error| panic!("{text:?}: {error}"));

        let mut canonical = case["canonical"].as_str().unwrap();
        if let Some((_, ours)) = SPELLING_KEPT_BY_GO.iter().find(|(t, _)| *t == text) {
            assert_ne!(canonical, *ours, "{text:?} is no exception any more");
            canonical = ours;
            exceptions += 1;
        }
        assert_eq!(quantity.to_string(), canonical, "{text:?}");

        let go = (
            case["value_rounded_up"].as_i64().unwrap(),
            case["milli_rounded_up"].as_i64().unwrap(),
        );
        let ours = (quantity.value_rounded_up(), quantity.milli_rounded_up());
        let wrapped = WRAPPED_BY_GO.iter().find(|(t, ..)| *t == text);
        if let Some((_, value, milli)) = wrapped {
            assert_ne!(ours, go, "{text:?} is no exception any more");
            assert_eq!(ours, (*value, *milli), "{text:?}");
            exceptions += 1;
        } else {
            assert_eq!(ours, go, "{text:?}");
        }

        // Go multiplies two rounded floats, which may be off by their last bits; ours is the nearest float.
        let go = case["float"].as_f64().unwrap();
        assert!(
            (quantity.as_f64() - go).abs() <= go.abs() * 2.0 * f64::EPSILON,
            "{text:?}: {}",
            quantity.as_f64()
        );
    }
    assert_eq!(exceptions, SPELLING_KEPT_BY_GO.len() + WRAPPED_BY_GO.len());
}

#[test]
fn floats_become_thousandths_as_in_keda() {
    let vectors = vectors();
    for case in vectors["from_float_as_milli"].as_array().unwrap() {
        let value = case["float"].as_f64().unwrap();
        let quantity = Quantity::from_f64_milli(value);
        if value >= 1e16 {
            // Go wraps to the most negative number; a very long queue is not a negative one.
            assert_eq!(quantity.milli_rounded_up(), i64::MAX);
            assert_eq!(quantity.to_string(), "9223372036854775807m");
            continue;
        }
        assert_eq!(
            quantity.milli_rounded_up(),
            case["milli"].as_i64().unwrap(),
            "{value}"
        );
        assert_eq!(
            quantity.to_string(),
            case["canonical"].as_str().unwrap(),
            "{value}"
        );
    }
    assert_eq!(Quantity::from_f64_milli(f64::NAN).to_string(), "0");
    assert_eq!(
        Quantity::from_f64_milli(f64::INFINITY).milli_rounded_up(),
        i64::MAX
    );
    assert_eq!(
        Quantity::from_f64_milli(f64::NEG_INFINITY).milli_rounded_up(),
        i64::MIN
    );
}

#[test]
fn edges_of_the_format() {
    for (text, canonical) in [
        ("1e-100", "1e-9"),
        ("0e999999", "0"),
        ("1.0001Ki", "1025"),
        ("0.0000000000000000001Ei", "1n"),
        ("-2Gi", "-2Gi"),
        ("123456789012345678901234567890Ki", "9223372036854775807"),
        ("1000E", "1000E"),
        ("-0.0000000001", "-1n"),
    ] {
        assert_eq!(
            Quantity::parse(text).map(|q| q.to_string()).as_deref(),
            Ok(canonical),
            "{text}"
        );
    }
    for text in [
        "1e40",
        "1e99999999999",
        "1700000000000E",
        "1e+",
        "12e6e",
        "1\u{ff11}",
        "1e1_0",
    ] {
        assert!(Quantity::parse(text).is_err(), "{text}");
    }
    assert_eq!(Quantity::parse("1Ki").unwrap(), Quantity::parse("1024").unwrap());
    assert!(Quantity::parse("1001m").unwrap() > Quantity::parse("1").unwrap());
}

proptest! {
    #[test]
    fn any_text_is_a_quantity_or_an_error(text in ".{0,60}") {
        let _ = Quantity::parse(&text).map(|q| (q.to_string(), q.as_f64(), q.value_rounded_up(), q.milli_rounded_up()));
    }

    #[test]
    fn quantity_like_text_is_stable_once_canonical(text in "[+-]?[0-9]{0,25}(\\.[0-9]{0,25})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,3})?") {
        if let Ok(quantity) = Quantity::parse(&text) {
            let canonical = quantity.to_string();
            let again = Quantity::parse(&canonical).unwrap();
            prop_assert_eq!(again.to_string(), canonical);
        }
    }

    #[test]
    fn thousandths_survive_the_round_trip(milli in any::<i64>()) {
        let quantity = Quantity::from_milli(milli);
        let again = Quantity::parse(&quantity.to_string()).unwrap();
        prop_assert_eq!(again, quantity);
        prop_assert_eq!(again.milli_rounded_up(), milli);
    }

    #[test]
    fn order_is_that_of_the_value(a in any::<i64>(), b in any::<i64>()) {
        prop_assert_eq!(Quantity::from_milli(a).cmp(&Quantity::from_milli(b)), a.cmp(&b));
    }
}
