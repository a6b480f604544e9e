//! What a person can do about damage that a cycle met (R11).

use verger_proto::report::{Damage, Severity};

/// Snapshots that are named one by one; damage of more is better cut out of them.
const NAMED_MAX: usize = 3;

/// The command that ends this damage, if there is one.
pub(crate) fn way_out(damage: &Damage) -> Option<String> {
    if let Some(content) = damage.subject.strip_prefix("manifest content ") {
        return Some(format!("give up what it holds: `verger snapshot abandon --manifest-content {content}`"));
    }
    let ids = distinct(damage);
    let few = !ids.is_empty() && ids.len() <= NAMED_MAX;
    let commands: Vec<String> = ids.iter().map(|id| format!("`verger snapshot abandon {id}`")).collect();
    let commands = commands.join(", ");
    match damage.severity {
        Severity::LostIndex if few => Some(format!(
            "bring the lost index back, from a copy or with `kopia index recover`, or give up what needs it: {commands}"
        )),
        Severity::LostIndex => Some("bring the lost index back, from a copy or with `kopia index recover`".to_owned()),
        _ if ids.is_empty() => None,
        Severity::Unreadable if few => Some(format!("give up what needs it: {commands}")),
        Severity::Unreadable | Severity::Noted => {
            Some("cut it out of the snapshots: `kopia snapshot fix invalid-files`".to_owned())
        }
    }
}

/// The way out of the worst of it. Manifests come first: with them may be gone what says that a snapshot was deleted, and then it
/// misses everything that went since.
pub(crate) fn of_the_worst(damage: &[Damage]) -> Option<String> {
    let manifests = damage.iter().find(|one| one.subject.starts_with("manifest content "));
    let worst = damage.iter().map(|one| one.severity).max()?;
    let worst = damage.iter().filter(|one| one.severity == worst);
    manifests.into_iter().chain(worst).find_map(way_out)
}

fn distinct(damage: &Damage) -> Vec<&str> {
    let mut ids: Vec<&str> = damage.snapshots.iter().map(String::as_str).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
