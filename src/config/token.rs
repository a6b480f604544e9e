//! Tokens of coordinators: what was given, and what `verger up` leaves for its own user.

use std::path::{Path, PathBuf};

use verger_kopia::{Error, Result};

/// A token from the environment.
pub(crate) fn from_environment() -> Option<String> {
    std::env::var("VERGER_TOKEN").ok().filter(|token| !token.is_empty())
}

/// Where the owner's token for an address is kept.
pub(crate) fn path(address: &url::Url) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    let host = address.host_str()?.replace(['[', ']', ':'], "_");
    Some(folder.join("verger/tokens").join(format!("{host}_{}", address.port_or_known_default()?)))
}

/// Keeps a token for the user of this process alone.
///
/// # Errors
/// `Permission` if it cannot be written.
pub(crate) fn keep(path: &Path, token: &str) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let written = (|| {
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        verger_coordinator::files::replace_private(path, format!("{token}\n").as_bytes())
    })();
    written.map_err(|error| Error::of_file(format!("keep a token in {}", path.display()), error))
}
