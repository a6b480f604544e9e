//! The key that this coordinator signs messages of the work queue with, in its data folder.

use std::path::Path;
use std::{fs, io};

use verger_proto::work_queue::SigningKey;
use verger_proto::work_queue::signing::{FILE_BYTES_MAX, KeyError};

use crate::files;

/// Its name in the data folder.
pub const FILE_NAME: &str = "work-key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum WorkKeyError {
    /// The file cannot be read or written.
    #[error("{FILE_NAME} in the data folder: {0}")]
    File(#[from] io::Error),
    /// What is in it.
    #[error("{FILE_NAME} in the data folder: {0}")]
    Key(#[from] KeyError),
}

/// The key in `folder`, which is coordinator `node`'s; a new one, readable by its owner alone, if there is none. One that cannot be read is
/// never replaced: workers would not know the new one yet, and somebody should know why.
///
/// # Errors
/// [`WorkKeyError`].
pub fn load_or_make(folder: &Path, node: u64) -> Result<SigningKey, WorkKeyError> {
    let path = folder.join(FILE_NAME);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::generate(node)?;
            files::replace_private(&path, key.to_file().as_bytes())?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
        Ok(found) if found.len() > FILE_BYTES_MAX as u64 => Err(KeyError::File.into()),
        Ok(_) => Ok(SigningKey::from_file(node, &zeroize::Zeroizing::new(fs::read(&path)?))?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = load_or_make(folder.path(), 3).unwrap();
        let mode = fs::metadata(folder.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load_or_make(folder.path(), 3).unwrap().public(), key.public());
        // A number beside it does not matter; the folder does.
        assert_eq!(load_or_make(folder.path(), 4).unwrap().node(), 4);
    }

    #[test]
    fn a_damaged_key_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        load_or_make(folder.path(), 3).unwrap();
        let path = folder.path().join(FILE_NAME);
        for damage in [Vec::new(), b"verger-work-key-1 00 00".to_vec(), vec![b'x'; 10_000]] {
            fs::write(&path, &damage).unwrap();
            let error = load_or_make(folder.path(), 3).unwrap_err();
            assert!(matches!(error, WorkKeyError::Key(KeyError::File)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damage);
        }
    }
}
