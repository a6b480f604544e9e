use super::*;
use crate::error::ErrorKind;
use proptest::prelude::*;
use serde_json::Value;

const SAMPLE: &str = concat!(
    r#"{"stream":"kopia:directory","entries":[{"name":"d","type":"d","mode":"0755","mtime":"2024-01-02T03:04:05.006Z","uid":1,"#,
    r#""gid":2,"obj":"k82b39a12","summ":{"size":1,"files":2,"symlinks":0,"dirs":1,"maxTime":"2024-01-02T03:04:05Z","numFailed":0}},"#,
    r#"{"name":"\u003cé\"","type":"f","mode":"0644","size":12,"mtime":"2024-01-02T03:04:05Z","obj":"Ix82b39a13"},"#,
    r#"{"name":"empty","type":"f","obj":"82b39a14"},{"name":"empty","type":"s","obj":"82b39a15"}],"#,
    r#""summary":{"size":1,"files":2,"symlinks":1,"dirs":1,"maxTime":"2024-01-02T03:04:05Z","numFailed":0}}"#,
    "\n"
);

fn whole(bytes: &[u8]) -> Result<Vec<Reference>> {
    let mut found = Vec::new();
    parse_slice(bytes, |reference| found.push(reference)).map(|()| found)
}

fn pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Reference>> {
    let mut found = Vec::new();
    let mut parser = Parser::new();
    for piece in pieces {
        parser.push(piece, |reference| found.push(reference))?;
    }
    parser.finish(|reference| found.push(reference)).map(|()| found)
}

/// What serde_json makes of it, for documents whose field names are spelt as Kopia does.
fn slowly(text: &[u8]) -> Vec<Reference> {
    let value: Value = serde_json::from_slice(text).unwrap();
    let entries = value["entries"].as_array().cloned().unwrap_or_default();
    let reference = |entry: &Value| Reference {
        kind: EntryType::from_text(entry["type"].as_str().unwrap_or_default()),
        object: entry["obj"].as_str().unwrap().parse().unwrap(),
    };
    entries.iter().map(reference).collect()
}

fn shown(found: &[Reference]) -> Vec<String> {
    found.iter().map(|reference| format!("{:?} {}", reference.kind, reference.object)).collect()
}

#[test]
fn all_entries_are_visited_same_named_ones_too() {
    let found = whole(SAMPLE.as_bytes()).unwrap();
    assert_eq!(shown(&found), ["Directory k82b39a12", "File Ix82b39a13", "File 82b39a14", "Symlink 82b39a15"]);
    assert_eq!(whole(br#"{"stream":"kopia:directory","entries":null,"summary":{}}"#).unwrap(), []);
    assert_eq!(whole(br#" { "entries" : [ ] , "stream" : "kopia:directory" } "#).unwrap(), []);
}

#[test]
fn any_order_case_and_escape_that_go_reads_is_read() {
    let text = concat!(
        "{ \"\\u0053TREAM\":\"kopia:d\\u0069rectory\",\n\"x\":[{},[[]],{\"a\":[1,-2.5e+3,null,true]}],\"entrie\u{17f}\":[\n",
        r#"{"OBJ":"k82b3","TYPE":"d"} , {"type":"\u0066","obj":"\u0038\u0032b4"},{"obj":"82b5"},{"type":null,"obj":"82b6"},"#,
        r#"{"name":"x","type":"device","obj":"82b7"},{"name":"","type":"x","obj":"82b8"}"#,
        "\n]}\n\n"
    );
    let found = whole(text.as_bytes()).unwrap();
    let expected = ["Directory k82b3", "File 82b4", "Unknown 82b5", "Unknown 82b6", "Unknown 82b7", "Unknown 82b8"];
    assert_eq!(shown(&found), expected);
}

#[test]
fn a_directory_cut_anywhere_is_refused() {
    let text = SAMPLE.trim_end().as_bytes();
    assert_eq!(whole(text).unwrap().len(), 4);
    for length in 0..text.len() {
        assert_eq!(whole(&text[..length]).unwrap_err().kind(), ErrorKind::Damaged, "{length}");
        assert!(whole(&text[length + 1..]).is_err(), "{length}");
        assert!(pieces(text[..length].chunks(7)).is_err(), "{length}");
    }
}

#[test]
fn a_directory_split_anywhere_reads_the_same() {
    let expected = whole(SAMPLE.as_bytes()).unwrap();
    for at in 0..=SAMPLE.len() {
        let (first, second) = SAMPLE.as_bytes().split_at(at);
        assert_eq!(pieces([first, second].into_iter()).unwrap(), expected, "{at}");
    }
    for size in [1, 2, 3, 50, 1000] {
        assert_eq!(pieces(SAMPLE.as_bytes().chunks(size)).unwrap(), expected, "{size}");
    }
}

#[test]
fn what_go_would_settle_by_luck_is_refused() {
    let document = |entries: &str| format!(r#"{{"stream":"kopia:directory","entries":{entries}}}"#);
    assert!(whole(document(r#"[{"obj":"82b3"}]"#).as_bytes()).is_ok());
    for entries in [
        "",
        "{}",
        "1",
        "[null]",
        "[{}]",
        "[[]]",
        r#"[{"obj":"82b3"},]"#,
        r#"[{"obj":"82b3"}{"obj":"82b3"}]"#,
        r#"[,{"obj":"82b3"}]"#,
        r#"[{"name":"x"}]"#,
        r#"[{"obj":""}]"#,
        r#"[{"obj":null}]"#,
        r#"[{"obj":1}]"#,
        r#"[{"obj":"82b"}]"#,
        r#"[{"obj":"82b3","obj":"82b4"}]"#,
        r#"[{"obj":"82b3","Obj":"82b4"}]"#,
        r#"[{"type":"f","obj":"82b3","type":"d"}]"#,
        r#"[{"type":7,"obj":"82b3"}]"#,
        r#"[{"name":"x","type":"f","size":01,"obj":"82b3"}]"#,
        r#"[{"name":"x","type":"f","size":+1,"obj":"82b3"}]"#,
        r#"[{"name":"x","type":"f","size":1.,"obj":"82b3"}]"#,
        r#"[{"name":"x","type":"f","size":1e,"obj":"82b3"}]"#,
        r#"[{"name":"x","type":"f","size":,"obj":"82b3"}]"#,
        "[{\"name\":\"a\nb\",\"type\":\"f\",\"obj\":\"82b3\"}]",
        r#"[{"name":"\x","type":"f","obj":"82b3"}]"#,
        r#"[{"name":"\u12g4","type":"f","obj":"82b3"}]"#,
        r#"[{"obj":"82b3"}],"entries":[]"#,
        r#"[{"obj":"82b3"}],"stream":"kopia:directory""#,
        r#"[{"obj":"82b3"}]}{"#,
    ] {
        assert_eq!(whole(document(entries).as_bytes()).unwrap_err().kind(), ErrorKind::Damaged, "{entries}");
    }
    for text in [
        "",
        " ",
        "{}",
        "null",
        "[]",
        "\u{feff}{}",
        r#"{"entries":[]}"#,
        r#"{"stream":"kopia:directory"}"#,
        r#"{"stream":"kopia:indirect","entries":[]}"#,
        r#"{"stream":null,"entries":[]}"#,
        r#"{"stream":"kopia:directory","entries":[],}"#,
        r#"{"stream":"kopia:directory" "entries":[]}"#,
        r#"{"stream" "kopia:directory","entries":[]}"#,
    ] {
        assert_eq!(whole(text.as_bytes()).unwrap_err().kind(), ErrorKind::Damaged, "{text}");
    }
}

#[test]
fn hostile_nesting_and_numbers_end() {
    for open in ["[", "{\"a\":", "[{\"a\":"] {
        let text = format!(r#"{{"stream":"kopia:directory","x":{}"#, open.repeat(1_000_000));
        assert!(whole(text.as_bytes()).unwrap_err().to_string().contains("too deep"));
    }
    let (open, close) = ("[".repeat(128), "]".repeat(128));
    let text = format!(r#"{{"x":{open}{close},"stream":"kopia:directory","entries":null}}"#);
    assert!(whole(text.as_bytes()).is_ok());
    let digits = "9".repeat(1_000_000);
    let text = SAMPLE.replace("\"size\":12", &format!("\"size\":{digits}"));
    assert_eq!(whole(text.as_bytes()).unwrap().len(), 4);
    // Byte by byte, the unfinished name grows to a million bytes; trying again at each would be a trillion steps.
    let text = SAMPLE.replace("empty", &digits);
    assert_eq!(pieces(text.as_bytes().chunks(1)).unwrap().len(), 4);
}

#[test]
fn a_directory_object_in_chunks_is_parsed_in_order() {
    let (first, second) = SAMPLE.as_bytes().split_at(300);
    let table = format!(
        r#"{{"stream":"kopia:indirect","entries":[{{"l":300,"o":"k01"}},{{"s":300,"l":{},"o":"k02"}}]}}"#,
        second.len()
    );
    let mut fetch = |id: &ContentId| {
        Ok(match id.to_string().as_str() {
            "k00" => table.clone().into_bytes(),
            "k01" => first.to_vec(),
            _ => second.to_vec(),
        })
    };
    let mut found = Vec::new();
    parse_object("Ik00".parse().unwrap(), &mut fetch, |reference| found.push(reference)).unwrap();
    assert_eq!(found, whole(SAMPLE.as_bytes()).unwrap());
    for fragment in ["k00", "k01", "k02"] {
        assert!(parse_object(fragment.parse().unwrap(), &mut fetch, |_| ()).is_err(), "{fragment}");
    }
}

/// Any JSON value, not deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 20, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

fn entry() -> impl Strategy<Value = Vec<(String, Value)>> {
    let object =
        (0usize..3, prop_oneof![Just(""), Just("k"), Just("x")], proptest::collection::vec(any::<u8>(), 1..33));
    let object =
        object.prop_map(|(levels, prefix, hash)| format!("{}{prefix}{}", "I".repeat(levels), hex::encode(hash)));
    let kind = prop_oneof![Just("f"), Just("d"), Just("s"), Just("x"), Just("")].prop_map(Value::from);
    let optional = (any::<Option<u32>>(), any::<Option<u32>>(), proptest::option::of(value()), any::<Option<u32>>());
    (any::<String>(), kind, object, optional, proptest::option::of(("[A-Z]{1,9}", value()))).prop_map(
        |(name, kind, object, (size, uid, summary, mode), unknown)| {
            let mut fields = vec![("name".to_owned(), Value::from(name)), ("type".to_owned(), kind)];
            let mut add = |name: &str, value: Option<Value>| fields.extend(value.map(|v| (name.to_owned(), v)));
            add("mode", mode.map(|mode| format!("0{mode:o}").into()));
            add("size", size.map(Value::from));
            add("mtime", Some("2024-01-02T03:04:05.123456789Z".into()));
            add("uid", uid.map(Value::from));
            add("obj", Some(object.into()));
            add("summ", summary);
            fields.extend(unknown.map(|(name, value)| (format!("x{name}"), value)));
            fields
        },
    )
}

/// Writes entries, in the order given or shuffled, with or without white space.
fn document(entries: &[Vec<(String, Value)>], order: u64, space: bool) -> String {
    let space = if space { " \n" } else { "" };
    let entry = |fields: &Vec<(String, Value)>| {
        let mut fields: Vec<_> =
            fields.iter().map(|(name, value)| format!("\"{name}\"{space}:{space}{value}")).collect();
        if order != 0 {
            fields.sort_by_key(|field| crc32fast::hash(format!("{order}{field}").as_bytes()));
        }
        format!("{{{space}{}{space}}}", fields.join(","))
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    format!(r#"{{"stream":"kopia:directory","entries":[{}],"summary":null}}"#, entries.join(&format!("{space},")))
}

proptest! {
    #[test]
    fn both_parsers_agree_with_serde(
        entries in proptest::collection::vec(entry(), 0..8), order in 0u64..4, space: bool, size in 1usize..200,
    ) {
        let text = document(&entries, order, space);
        let expected = slowly(text.as_bytes());
        prop_assert_eq!(&whole(text.as_bytes()).unwrap(), &expected);
        prop_assert_eq!(&pieces(text.as_bytes().chunks(size)).unwrap(), &expected);
    }

    #[test]
    fn what_is_accepted_is_json_and_every_entry_of_it(
        entries in proptest::collection::vec(entry(), 0..4), at: prop::sample::Index, byte: u8, printable in 0x20u8..0x7f, raw: bool,
    ) {
        let mut text = document(&entries, 0, false).into_bytes();
        let at = at.index(text.len());
        text[at] = if raw { byte } else { printable };
        let streamed = pieces(text.chunks(13));
        match whole(&text) {
            Ok(found) => {
                prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok());
                prop_assert_eq!(found.len(), entries.len());
                prop_assert_eq!(streamed.unwrap(), found);
            }
            Err(_) => prop_assert!(streamed.is_err()),
        }
    }

    #[test]
    fn plain_prefix_stops_where_it_should(bytes: Vec<u8>) {
        let expected = bytes.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\').unwrap_or(bytes.len());
        prop_assert_eq!(token::plain_prefix(&bytes), expected);
    }

    #[test]
    fn digit_prefix_stops_where_it_should(mut bytes in proptest::collection::vec(b'0'..=b'9', 0..30), at: prop::sample::Index, byte: u8) {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let expected = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
        prop_assert_eq!(token::digit_prefix(&bytes), expected);
    }
}
