//! Files that a person or another program wrote, changed in all kinds of ways: read or refused, never a panic, nothing large.

use std::path::Path;

use verger_kopia::ErrorKind;
use verger_kopia::storage::Address;

use super::mutate::{Random, change};
use super::{connection, engine, file, stores};

const CONNECTIONS: [&str; 3] = [
    r#"{"storage":{"type":"s3","config":{"bucket":"b","prefix":"p/","endpoint":"h:9000","doNotUseTLS":true,"accessKeyID":"A",
        "secretAccessKey":"hush","sessionToken":"hush","rootCA":"eA==","pointInTime":"2026-01-01T00:00:00Z"}},
        "hostname":"golden","username":"owner","enableActions":false,"readonly":true}"#,
    r#"{"storage":{"type":"filesystem","config":{"path":"/srv/x","fileMode":384,"dirMode":448}},"hostname":"h","username":"u"}"#,
    r#"{"storage":{"type":"azureBlob","config":{"container":"c","storageAccount":"a","storageKey":"hush"}}}"#,
];
const FILES: [&str; 2] = [
    "repository:\n  repository: s3://b/p/\n  password-env: X\nengine:\n  memory-limit: 1GiB\n  parallel: 3\n",
    "maintain: {full: true, safety: full, mark-to-drop: 24, act-as: \"a@b\"} # note\n",
];

fn changed(inputs: &[&str], count: u32, mut check: impl FnMut(&[u8])) {
    let mut random = Random(7);
    for _ in 0..count {
        let mut input = inputs[random.below(inputs.len())].as_bytes().to_vec();
        change(&mut input, inputs[random.below(inputs.len())].as_bytes(), &mut random);
        let peak = allocation_counter::measure(|| check(&input)).bytes_max;
        let limit = (256 << 10) + 256 * input.len() as u64;
        assert!(peak <= limit, "{peak} bytes allocated for {}", input.escape_ascii());
    }
}

#[test]
fn changed_connection_files_are_read_or_refused() {
    let mut read = 0;
    changed(&CONNECTIONS, 3000, |input| match connection::parse(Path::new("x"), input) {
        Ok(connection) => {
            read += 1;
            if let Ok(address) = connection.address() {
                let _ = address.parse::<Address>();
            }
            if let Ok(settings) = stores::from_connection(&connection) {
                assert!(!format!("{settings:?}").contains("hush"));
            }
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Usage | ErrorKind::Unsupported));
            assert!(!error.chain().contains("hush"), "{}", error.chain());
        }
    });
    assert!(read > 100, "{read}");
}

#[test]
fn changed_configuration_files_are_read_or_refused() {
    let mut read = 0;
    changed(&FILES, 1500, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match file::parse(Path::new("x"), text) {
            Ok(_) => read += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Usage),
        }
    });
    assert!(read > 20, "{read}");
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        bomb.push_str(&format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(", ")));
    }
    for text in [format!("{bomb}engine: *i\n"), format!("engine:\n  state-dir: *i\n{bomb}"), "[".repeat(100_000)] {
        let parse = || assert_eq!(file::parse(Path::new("x"), &text).unwrap_err().kind(), ErrorKind::Usage);
        assert!(allocation_counter::measure(parse).bytes_max < 16 << 20);
    }
}

#[test]
fn changed_sizes_are_numbers_or_refused() {
    changed(&["512MiB", "1.5 GB", "18446744073709551615", "0.3pb"], 3000, |input| {
        let Some(size) = std::str::from_utf8(input).ok().and_then(engine::parse_size) else { return };
        assert_eq!(engine::parse_size(&size.to_string()), Some(size));
    });
}
