//! Settings and keys of one repository's store, where a process looks after several that have other ones.
//!
//! ```text
//! <--secrets DIR>/<name>/AWS_ACCESS_KEY_ID        a file for each, as Kubernetes mounts a secret
//! VERGER_REPO_<NAME>_AWS_ACCESS_KEY_ID            or a variable for each
//! ```
//!
//! What is not said there is as for all repositories; keys of one identity are never mixed with those of another.

use std::collections::BTreeMap;
use std::path::Path;

use verger_kopia::storage::settings::{S3Credentials, StoreSettings};
use verger_kopia::{Error, ErrorKind, Result};

use super::stores;

/// What Google's own tools take for a file is a file here as well: in a folder it is the credentials themselves.
const GOOGLE_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Of these each is of no use without the other.
const PAIR: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
/// Longest value, in bytes.
const VALUE_BYTES_MAX: u64 = 64 << 10;

/// What a repository has of its own.
pub(crate) struct OwnStore {
    pub(crate) settings: StoreSettings,
    /// Where its keys come from, in words; none if it has no keys of its own.
    pub(crate) keys: Option<String>,
}

/// Looks for what the repository of this name has of its own; `None`: nothing. `secrets`: where secrets are mounted.
///
/// # Errors
/// `Permission` for a file that cannot be read; `Usage` for a value that is none, and for half of a pair of keys.
pub(crate) fn find(name: &str, secrets: Option<&Path>) -> Result<Option<OwnStore>> {
    let folder = secrets.map(|secrets| secrets.join(name)).filter(|folder| folder.is_dir());
    let (mut found, mut is_in_folder) = (BTreeMap::new(), false);
    let prefix = prefix(name);
    for variable in stores::VARIABLES {
        let in_folder = folder.as_deref().map(|folder| in_folder(folder, variable)).transpose()?.flatten();
        is_in_folder |= in_folder.is_some();
        let value = in_folder.or_else(|| std::env::var(format!("{prefix}{variable}")).ok().filter(|v| !v.is_empty()));
        found.extend(value.map(|value| (variable, value)));
    }
    if found.is_empty() {
        return Ok(None);
    }
    let place = match &folder {
        Some(folder) if is_in_folder => folder.display().to_string(),
        _ => format!("variables that begin with {prefix}"),
    };
    if let [Some(there), None] | [None, Some(there)] = PAIR.map(|one| found.contains_key(one).then_some(one)) {
        let missing = if there == PAIR[0] { PAIR[1] } else { PAIR[0] };
        let step = format!("the store's keys of {name} in {place} have {there} and no {missing}");
        return Err(
            Error::new(ErrorKind::Usage, step).with_fix("give both, or neither for the keys of all repositories")
        );
    }
    let settings = stores::from(&|variable| found.get(variable).cloned());
    let keys = has_keys(&settings).then_some(place);
    Ok(Some(OwnStore { settings, keys }))
}

/// What variables of a repository begin with: its name in capitals, with `_` for whatever no variable has.
fn prefix(name: &str) -> String {
    let name = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    format!("VERGER_REPO_{}_", name.collect::<String>())
}

fn in_folder(folder: &Path, variable: &str) -> Result<Option<String>> {
    let path = folder.join(variable);
    let failed = |error| Error::of_file(format!("read {}", path.display()), error);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(_) if variable == GOOGLE_FILE => return Ok(Some(path.display().to_string())),
        Ok(about) if about.len() > VALUE_BYTES_MAX => {
            return Err(Error::new(ErrorKind::Usage, format!("{} is too long for a value", path.display())));
        }
        Ok(_) => {}
    }
    let bytes = std::fs::read(&path).map_err(failed)?;
    let text = String::from_utf8(bytes).ok().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    text.filter(|text| !text.is_empty()).map(Some).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("{} is empty, or no text", path.display()))
            .with_fix(format!("write the value of {variable} into it, or remove it"))
    })
}

fn has_keys(settings: &StoreSettings) -> bool {
    let StoreSettings { s3, gcs, azure, .. } = settings;
    let s3 = !matches!(s3.credentials, S3Credentials::Chain);
    let azure = azure.key.is_some() || azure.sas_token.is_some() || azure.client_secret.is_some();
    s3 || gcs.credentials_file.is_some() || azure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let secrets = tempfile::tempdir().unwrap();
        std::fs::create_dir(secrets.path().join("photos")).unwrap();
        for (name, value) in files {
            std::fs::write(secrets.path().join("photos").join(name), value).unwrap();
        }
        secrets
    }

    #[test]
    fn a_folder_of_the_repositorys_name_has_its_keys_and_nobody_elses() {
        let secrets = folder(&[
            ("AWS_ACCESS_KEY_ID", "A"),
            ("AWS_SECRET_ACCESS_KEY", "hush\n"),
            ("AWS_S3_ENDPOINT", "http://h:9000"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "{}"),
            ("KOPIA_PASSWORD", "not asked for"),
        ]);
        let own = find("photos", Some(secrets.path())).unwrap().unwrap();
        let S3Credentials::Static { access_key, secret_key, session_token } = &own.settings.s3.credentials else {
            panic!("no keys")
        };
        assert_eq!((access_key.as_str(), secret_key.expose(), session_token.is_none()), ("A", "hush", true));
        assert_eq!(own.settings.s3.endpoint.as_deref(), Some("http://h:9000"));
        let file = own.settings.gcs.credentials_file.unwrap();
        assert_eq!(file, secrets.path().join("photos/GOOGLE_APPLICATION_CREDENTIALS"));
        assert_eq!(own.keys.unwrap(), secrets.path().join("photos").display().to_string());
        assert!(find("music", Some(secrets.path())).unwrap().is_none() && find("photos", None).unwrap().is_none());
    }

    #[test]
    fn half_of_a_pair_and_values_that_are_none_are_refused_by_name() {
        for (files, named) in [
            (&[("AWS_ACCESS_KEY_ID", "A")][..], "AWS_SECRET_ACCESS_KEY"),
            (&[("AWS_SECRET_ACCESS_KEY", "hush")], "AWS_ACCESS_KEY_ID"),
            (&[("AWS_REGION", "\n")], "AWS_REGION"),
        ] {
            let secrets = folder(files);
            let error = find("photos", Some(secrets.path())).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.chain().contains(named) && !error.chain().contains("hush"), "{}", error.chain());
        }
        let secrets = folder(&[("AWS_REGION", "eu-central-1")]);
        let own = find("photos", Some(secrets.path())).unwrap().unwrap();
        assert_eq!((own.settings.s3.region.as_deref(), own.keys), (Some("eu-central-1"), None));
    }

    #[test]
    fn variables_begin_with_the_name_as_variables_may() {
        assert_eq!(prefix("velero-prod.eu"), "VERGER_REPO_VELERO_PROD_EU_");
    }
}
