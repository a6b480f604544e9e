//! Files of certificates, good and bad, and how they are exchanged while connections are taken.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use verger_kopia::clock::{SetClock, Timestamp};
use verger_kopia::error::ErrorKind;

use super::super::{Tls, TlsFiles};

/// A certificate that signs itself, and its key, valid in these years.
fn pair(from: i32, until: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (parameters.not_before, parameters.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn files(folder: &Path, certificate: &str, key: &str) -> TlsFiles {
    let files = TlsFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key"), client_authority: None };
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    files
}

fn clock() -> Arc<SetClock> {
    Arc::new(SetClock::new("2026-11-21T00:00:00Z".parse::<Timestamp>().unwrap()))
}

#[test]
fn each_mistake_is_named_with_its_file_and_never_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let (good, other) = (pair(2026, 2030), pair(2026, 2030));
    for (certificate, key, says) in [
        (&good.0, &other.1, "does not fit the certificate"),
        (&pair(2020, 2026).0, &good.1, "expired at 2026-01-01"),
        (&pair(2027, 2028).0, &good.1, "is valid from 2027-01-01"),
        (&String::new(), &good.1, "tls.crt holds no certificate"),
        (&good.1, &good.1, "tls.crt holds no certificate"),
        (&good.0, &good.0, "tls.key holds no private key"),
        (&good.0, &good.1.replace("PRIVATE", "ENCRYPTED PRIVATE"), "tls.key holds no private key"),
        (&good.0, &good.1[..good.1.len() / 2].to_owned(), "tls.key holds no private key"),
        (&"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), &good.1, "cannot be read"),
    ] {
        let error = Tls::read(files(folder.path(), certificate, key), clock()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{says}: {}", error.chain());
        assert!(error.chain().contains(says), "{says}: {}", error.chain());
        assert!(error.fix().is_some(), "{says}");
        let line = good.1.lines().nth(1).unwrap();
        assert!(!format!("{error:?} {}", error.chain()).contains(&line[..20]), "the key is told");
    }
    let mut gone = files(folder.path(), &good.0, &good.1);
    gone.client_authority = Some(folder.path().join("nowhere"));
    assert_eq!(Tls::read(gone.clone(), clock()).unwrap_err().kind(), ErrorKind::Permission);
    std::fs::write(folder.path().join("nowhere"), "no authority").unwrap();
    assert_eq!(Tls::read(gone.clone(), clock()).unwrap_err().kind(), ErrorKind::Usage);
    std::fs::write(folder.path().join("nowhere"), &other.0).unwrap();
    assert!(Tls::read(gone.clone(), clock()).is_ok());
    std::fs::remove_file(&gone.key).unwrap();
    assert_eq!(Tls::read(gone, clock()).unwrap_err().kind(), ErrorKind::Permission);
}

#[test]
fn new_files_are_taken_and_bad_ones_are_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (pair(2026, 2030), pair(2026, 2031));
    let clock = clock();
    let tls = Tls::read(files(folder.path(), &first.0, &first.1), clock.clone()).unwrap();
    let before = tls.config();
    assert!(!tls.read_again().unwrap());
    files(folder.path(), &second.0, &first.1);
    assert_eq!(tls.read_again().unwrap_err().kind(), ErrorKind::Usage, "half written");
    assert!(!tls.read_again().unwrap(), "told once");
    assert!(Arc::ptr_eq(&before, &tls.config()), "the one before goes on");
    files(folder.path(), &second.0, &second.1);
    assert!(tls.read_again().unwrap());
    assert!(!Arc::ptr_eq(&before, &tls.config()));
    clock.advance(Duration::from_secs(10 * 366 * 86_400));
    files(folder.path(), &first.0, &first.1);
    assert!(tls.read_again().unwrap_err().chain().contains("expired"));
    std::fs::remove_file(folder.path().join("tls.key")).unwrap();
    assert_eq!(tls.read_again().unwrap_err().kind(), ErrorKind::Permission);
}
