use proptest::prelude::*;

use super::{PayloadError, check_sender};

const OK: Result<(), PayloadError> = Ok(());
const NOT: Result<(), PayloadError> = Err(PayloadError::NotAnObject);
const WHO: Result<(), PayloadError> = Err(PayloadError::SenderMismatch);

#[test]
fn each_row_of_the_table() {
    let cases: &[(&[u8], Result<(), PayloadError>)] = &[
        (br#"{"from":"1"}"#, OK),
        (b" \t\r\n{ \"from\" : \"1\" } \n", OK),
        (br#"{"content":{"from":"2"},"from":"1"}"#, OK),
        (
            br#"{"content":[{"from":"2"}],"from":"1","x":[[],{},[[{}]]]}"#,
            OK,
        ),
        (br#"{"\u0066rom":"1"}"#, OK),
        (br#"{"from":"\u0031"}"#, OK),
        (
            br#"{"from":"1","n":[0,-0,1.5,1e9,-1.25E-3,true,false,null]}"#,
            OK,
        ),
        (br#"{"from":"1","x":"\ud800"}"#, OK),
        (br#"{"from":"1","a":1,"a":2}"#, OK),
        (
            br#"{"from":"1","x":[1e999,-1e-999,123456789012345678901234567890]}"#,
            OK,
        ),
        (br#"{"\ud800":1,"from":"1"}"#, OK),
        (br"{}", WHO),
        (br#"{"From":"1"}"#, WHO),
        (br#"{"from":"2"}"#, WHO),
        (br#"{"from":"10"}"#, WHO),
        (br#"{"from":""}"#, WHO),
        (br#"{"from":1}"#, WHO),
        (br#"{"from":null}"#, WHO),
        (br#"{"from":["1"]}"#, WHO),
        (br#"{"from":{"from":"1"}}"#, WHO),
        (br#"{"content":{"from":"1"}}"#, WHO),
        (br#"{"from":"1","from":"1"}"#, WHO),
        (br#"{"from":"1","\u0066rom":"2"}"#, WHO),
        (br#"{"\u0066ro\u006d":"2","from":"1"}"#, WHO),
        (br#"{"from":2,"from":"1"}"#, WHO),
        (br#"{"from":"\ud800"}"#, WHO),
        (br#"{"from":"1\u0000"}"#, WHO),
        (b"", NOT),
        (b" ", NOT),
        (br#""from""#, NOT),
        (br"1", NOT),
        (br"null", NOT),
        (br#"[{"from":"1"}]"#, NOT),
        (br#"{"from":"1"}{}"#, NOT),
        (br#"{"from":"1"},"#, NOT),
        (br#"{"from":"1",}"#, NOT),
        (br#"{,"from":"1"}"#, NOT),
        (br#"{"from":"1""#, NOT),
        (br#"{"from":"1"#, NOT),
        (br#"{'from':'1'}"#, NOT),
        (br#"{from:"1"}"#, NOT),
        (br#"{"from":"2","x":}"#, NOT),
        (br#"{"from":"1","x":01}"#, NOT),
        (br#"{"from":"1","x":1.}"#, NOT),
        (br#"{"from":"1","x":.5}"#, NOT),
        (br#"{"from":"1","x":+1}"#, NOT),
        (br#"{"from":"1","x":1e}"#, NOT),
        (br#"{"from":"1","x":-}"#, NOT),
        (br#"{"from":"1","x":NaN}"#, NOT),
        (br#"{"from":"1","x":tru}"#, NOT),
        (br#"{"from":"1","x":"\x"}"#, NOT),
        (br#"{"from":"1","x":"\u12g4"}"#, NOT),
        (br#"{"from":"1","x":"\u12"}"#, NOT),
        (br#"{"from":"1","x":[1,]}"#, NOT),
        (br#"{"from":"1","x":[1}"#, NOT),
        (br#"{"from":"1","x":{"a"}}"#, NOT),
        (br#"{"from":"1","x":{"a":1,}}"#, NOT),
        (b"{\"from\":\"1\",\"x\":\"\n\"}", NOT),
        (b"{\"from\":\"1\",\"\n\":1}", NOT),
        (br#"{"from":"1","\x":1}"#, NOT),
        (br#"{"from":"1",2:1}"#, NOT),
        (b"{\"from\":\"1\",\"x\":\"\xff\"}", NOT),
        (b"\xef\xbb\xbf{\"from\":\"1\"}", NOT),
        (b"{\"from\":\"1\"}\0", NOT),
        (b"{\x0b\"from\":\"1\"}", NOT),
    ];
    for (payload, expected) in cases {
        assert_eq!(
            check_sender(payload, "1"),
            *expected,
            "{}",
            payload.escape_ascii()
        );
    }
}

#[test]
fn a_sender_beyond_ascii_may_be_escaped() {
    assert_eq!(check_sender("{\"from\":\"ü😀\"}".as_bytes(), "ü😀"), OK);
    assert_eq!(check_sender(br#"{"from":"\u00fc\ud83d\ude00"}"#, "ü😀"), OK);
    assert_eq!(
        check_sender(br#"{"from":"\u00fc\ude00\ud83d"}"#, "ü😀"),
        WHO
    );
    assert_eq!(check_sender(br#"{"from":"\u00fc\ud83d"}"#, "ü😀"), WHO);
}

#[test]
fn what_is_escaped_is_compared_to_its_end() {
    assert_eq!(check_sender(br#"{"from":"\u00347"}"#, "47"), OK);
    for from in ["\\u0034", "\\u0034711", "4\\u00371", "\\u00347\\u0000"] {
        let payload = format!("{{\"from\":\"{from}\"}}");
        assert_eq!(check_sender(payload.as_bytes(), "47"), WHO, "{from}");
    }
    assert_eq!(check_sender(br#"{"\u0066ro":"1"}"#, "1"), WHO);
}

#[test]
fn a_special_byte_is_found_wherever_it_stands_in_a_string() {
    for length in 0..40 {
        for at in 0..=length {
            let text = |special: &str| {
                let (before, after) = ("é".repeat(at), "z".repeat(length - at));
                format!("{{\"from\":\"1\",\"x\":\"{before}{special}{after}\"}}")
            };
            let verdict = |special| check_sender(text(special).as_bytes(), "1");
            for fine in ["", "\\n", "\\u00e9", "\u{7f}", "😀"] {
                assert_eq!(verdict(fine), OK, "{fine} at {at} of {length}");
            }
            for broken in ["\"", "\\x", "\n", "\0", "\u{1f}"] {
                assert_eq!(verdict(broken), NOT, "{broken:?} at {at} of {length}");
            }
        }
    }
}

#[test]
fn depth_costs_no_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!(
            "{{\"from\":\"1\",\"x\":{}1{}}}",
            open.repeat(500_000),
            close.repeat(500_000)
        );
        assert_eq!(check_sender(deep.as_bytes(), "1"), OK);
        assert_eq!(check_sender(&deep.as_bytes()[..deep.len() - 1], "1"), NOT);
    }
    let mixed = format!(
        "{{\"from\":\"1\",\"x\":{}1{}}}",
        "[{\"a\":".repeat(99),
        "}]".repeat(99)
    );
    assert_eq!(check_sender(mixed.as_bytes(), "1"), OK);
    let crossed = format!(
        "{{\"from\":\"1\",\"x\":{}1{}}}",
        "[{\"a\":".repeat(99),
        "]}".repeat(99)
    );
    assert_eq!(check_sender(crossed.as_bytes(), "1"), NOT);
}

/// JSON-like text: mostly valid, with a byte changed now and then.
fn json_like() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just("1".to_string()),
        Just("-0.5e+3".to_string()),
        Just("null".to_string()),
        Just("true".to_string()),
        Just("\"1\"".to_string()),
        Just("\"a\\n\\u00e9\"".to_string()),
    ];
    let value = scalar.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![Just("from"), Just("\\u0066rom"), Just("x"), Just("")];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(" ,"))),
            prop::collection::vec((name, inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(n, v)| format!("\"{n}\" :{v}"))
                    .collect();
                format!("{{{} }}", members.join(","))
            }),
        ]
    });
    (
        value,
        prop::option::weighted(0.4, (any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(text, change)| {
            let mut bytes = text.into_bytes();
            if let Some((index, byte)) = change {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What a tree can be made of is an object here, and nothing else is; the tree says the same of `from`.
    #[test]
    fn agrees_with_a_tree(payload in json_like()) {
        let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&payload);
        let ours = check_sender(&payload, "1");
        prop_assert_eq!(object.is_ok(), ours != NOT, "{}", payload.escape_ascii());
        if ours.is_ok() {
            prop_assert_eq!(&object.unwrap()["from"], "1");
        }
    }

    #[test]
    fn never_panics(payload in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = check_sender(&payload, "1");
    }
}
