use proptest::prelude::*;
use serde_json::Value;

use super::{Format, Locator, get};

/// Where the path library differs from the Go implementation, and why that is left so.
const DIFFERENT_FROM_GO: &[(&str, &str)] = &[];

fn find(format: Format, location: &str, body: &str) -> Result<f64, String> {
    Locator::new(format, location)?.find(body.as_bytes())
}

#[test]
fn json_paths_agree_with_go() {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/json_path.json")).unwrap();
    let document = vectors["document"].as_str().unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 39);
    let mut differing = Vec::new();
    for case in cases {
        let path = case["path"].as_str().unwrap();
        let value = get(document, path);
        let kind = match value.kind() {
            gjson::Kind::Null => "Null",
            gjson::Kind::False => "False",
            gjson::Kind::Number => "Number",
            gjson::Kind::String => "String",
            gjson::Kind::True => "True",
            gjson::Kind::Array | gjson::Kind::Object => "JSON",
        };
        let ours = (
            value.exists(),
            kind,
            value.json().to_owned(),
            value.str().to_owned(),
        );
        let go = (
            case["exists"].as_bool().unwrap(),
            case["type"].as_str().unwrap(),
            case["raw"].as_str().unwrap().to_owned(),
            case["string"].as_str().unwrap().to_owned(),
        );
        if ours != go {
            differing.push((path, format!("go {go:?}, ours {ours:?}")));
        }
        if kind == "Number" {
            assert_eq!(
                find(Format::Json, path, document).ok(),
                case["num"].as_f64(),
                "{path}"
            );
        }
    }
    let paths: Vec<_> = differing.iter().map(|(path, _)| *path).collect();
    assert_eq!(
        paths,
        DIFFERENT_FROM_GO
            .iter()
            .map(|(path, _)| *path)
            .collect::<Vec<_>>(),
        "{differing:#?}"
    );
}

#[test]
fn values_and_faults_in_each_format() {
    let no = |location: &str, found: &str| {
        Err(format!(
            "valueLocation {location:?} must point to a numeric value or a string parseable as a Quantity, got {found}"
        ))
    };
    let json = r#"{"a":{"b":7.5,"q":"100m","s":"canary","t":true,"n":null,"l":[1,2]}}"#;
    let yaml = "a:\n  b: 7.5\n  q: 100m\n  s: canary\n  l: [1, {x: 2k}]\n  i: 3\n";
    let xml = "<?xml version=\"1.0\"?><!-- c --><a v=\"4\"><b>7.5</b><q> 100m </q><s>canary</s><l>1</l><l><x>2k</x></l>\
               <m u='1'>9<k/></m><e>&#49;&amp;</e><c><![CDATA[12]]></c></a>";
    let prometheus = "# HELP a help {\n# TYPE a gauge\na{q=\"x\"} 1\na{q=\"y\",r=\"\\\"z\\\\\"} 2.5 1700000000\n\
                      # TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_sum 4\nh_count 5\nb_count 6\nnan NaN\n# comment\n\n c 1e3\r\n";
    for (format, location, body, expected) in [
        (Format::Json, "a.b", json, Ok(7.5)),
        (Format::Json, "a.q", json, Ok(0.1)),
        (Format::Json, "a.l.#", json, Ok(2.0)),
        (Format::Json, "a.s", json, no("a.s", "String")),
        (Format::Json, "a.t", json, no("a.t", "True")),
        (Format::Json, "a.n", json, no("a.n", "Null")),
        (Format::Json, "a.l", json, no("a.l", "JSON")),
        (Format::Json, "x", json, no("x", "Null")),
        (Format::Json, "a", r#"{"a":1"#, Err("the answer is not a valid JSON document".to_owned())),
        (Format::Json, "a", "<html>canary</html>", Err("the answer is not a valid JSON document".to_owned())),
        (Format::Json, "..1.a", "{\"a\":1}\n{\"a\":2}", Ok(2.0)),
        (Format::Yaml, "a.b", yaml, Ok(7.5)),
        (Format::Yaml, "a.q", yaml, Ok(0.1)),
        (Format::Yaml, "a.i", yaml, Ok(3.0)),
        (Format::Yaml, "a.l.1.x", yaml, Ok(2000.0)),
        (Format::Yaml, "a.l.7", yaml, no("a.l.7", "Null")),
        (Format::Yaml, "a.l", yaml, no("a.l", "List")),
        (Format::Yaml, "a", yaml, no("a", "Map")),
        (Format::Yaml, "a.s", yaml, no("a.s", "String")),
        (Format::Yaml, "a", "a: [", Err("the answer is not a valid YAML document".to_owned())),
        (Format::Xml, "a.b", xml, Ok(7.5)),
        (Format::Xml, "a.q", xml, Ok(0.1)),
        (Format::Xml, "a.-v", xml, Ok(4.0)),
        (Format::Xml, "a.l.0", xml, Ok(1.0)),
        (Format::Xml, "a.l.1.x", xml, Ok(2000.0)),
        (Format::Xml, "a.m.#text", xml, Ok(9.0)),
        (Format::Xml, "a.c", xml, Ok(12.0)),
        (Format::Xml, "a.e", xml, no("a.e", "String")),
        (Format::Xml, "a", xml, no("a", "Map")),
        (Format::Xml, "a.z", xml, no("a.z", "Null")),
        (Format::Xml, "a", "<a><b></a>", Err("the answer is not a valid XML document".to_owned())),
        (Format::Xml, "a", "<a>", Err("the answer is not a valid XML document".to_owned())),
        (Format::Xml, "a", "1", Err("the answer is not a valid XML document".to_owned())),
        (Format::Prometheus, "a", prometheus, Ok(1.0)),
        (Format::Prometheus, "a{q=\"y\"}", prometheus, Ok(2.5)),
        (Format::Prometheus, "{__name__='a', r='\"z\\\\'}", prometheus, Ok(2.5)),
        (Format::Prometheus, "c", prometheus, Ok(1000.0)),
        (Format::Prometheus, "b_count", prometheus, Ok(6.0)),
        (Format::Prometheus, "h_count", prometheus, Err("no untyped, counter or gauge sample matches valueLocation \"h_count\"".to_owned())),
        (Format::Prometheus, "a{q=\"z\"}", prometheus, Err("no untyped, counter or gauge sample matches valueLocation \"a{q=\\\"z\\\"}\"".to_owned())),
        (Format::Prometheus, "a", "a{q=canary} 1\n", Err("line 1 of the answer is not in Prometheus' text format".to_owned())),
        (Format::Prometheus, "a", "<html>canary", Err("line 1 of the answer is not in Prometheus' text format".to_owned())),
        (Format::Prometheus, "a{q!=\"z\"}", "", Err("valueLocation \"a{q!=\\\"z\\\"}\" must be a metric name with labels that are equal to something, such as waiting{queue=\"a\"}".to_owned())),
    ] {
        assert_eq!(find(format, location, body), expected, "{format:?} {location}");
    }
    let nan = find(Format::Prometheus, "nan", prometheus).unwrap();
    assert!(nan.is_nan());
    let binary = Locator::new(Format::Json, "a").unwrap().find(b"\xff");
    assert_eq!(binary, Err("the answer is not UTF-8 text".to_owned()));
}

#[test]
fn nothing_is_so_deep_that_it_ends_the_process() {
    let depth = 100_000;
    let too_deep = Err("the answer is nested too deeply".to_owned());
    assert_eq!(
        find(Format::Xml, "a", &("<a>".repeat(depth) + &"</a>".repeat(depth))),
        too_deep
    );
    let list = "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(find(Format::Json, "0", &list), too_deep);
    assert_eq!(find(Format::Json, "..0", &list), too_deep);
    assert_eq!(
        find(
            Format::Json,
            "a",
            &format!(r#"{{"b":"\"{}","a":1}}"#, "[".repeat(depth))
        ),
        Ok(1.0)
    );
    assert_eq!(
        find(Format::Yaml, "0", &list),
        Err("the answer is not a valid YAML document".to_owned())
    );
    assert_eq!(
        find(Format::Json, &"[".repeat(2000), "{}"),
        Err("parameter \"valueLocation\" must not be longer than 1024 bytes".to_owned())
    );
    for part in [
        "[",
        "{",
        "#(",
        "@this|",
        "a|",
        "a.",
        "#.",
        "#(a==",
        "*.",
        "@flatten:{",
        "!",
    ] {
        let location = part.repeat(1024 / part.len());
        assert!(
            find(Format::Json, &location, r#"{"a":[{"a":{}}]}"#).is_err(),
            "{part}"
        );
    }
}

proptest! {
    #[test]
    fn any_answer_is_a_number_or_an_error(body in "\\PC{0,80}", structured in "[\\[\\]{}:,\"a0-9.e<>/&;#= \n-]{0,60}") {
        for body in [&body, &structured] {
            for (format, location) in [
                (Format::Json, "a.0"), (Format::Json, "#(a==1).b"), (Format::Json, "..#.a"), (Format::Json, "a|@reverse"),
                (Format::Yaml, "a.0"), (Format::Xml, "a.0"), (Format::Prometheus, "a{b=\"c\"}"),
            ] {
                let _ = find(format, location, body);
            }
        }
    }

    #[test]
    fn any_location_is_accepted_or_refused(location in "[a-z{}\\[\\]()#.*?|@!:,\"'=<>~%\\\\0-9 -]{0,40}") {
        let document = r#"{"a":{"b":[{"n":"x","v":1},{"n":"y","v":2.5}]},"list":[1,2,3]}"#;
        for format in [Format::Json, Format::Yaml, Format::Prometheus] {
            let _ = find(format, &location, document);
        }
    }
}
