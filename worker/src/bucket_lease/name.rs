//! Which store this is, said before anybody holds its lease (R6).

use verger_kopia::clock::Timestamp;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::storage::{Condition, Storage};
use verger_kopia::{ErrorKind, Result};

use super::{LeaseBody, TTL_MIN, put_or_look, read};

/// What the lease object says. Where there is none, one is made that is free, was never held, and says `store_id`: all who come later
/// mean the same store. Of several who do so at once one is the first, and the others hear what it said. Nothing that is there is written
/// over, however late this is. On a local disk the caller holds `verger.lock`.
///
/// # Errors
/// As [`read`]; what the store says, which must look at conditions of writes.
pub fn name_store(storage: &dyn Storage, unique_id: &str, store_id: &str) -> Result<LeaseBody> {
    if let Some((_, body)) = read(storage)? {
        return Ok(body);
    }
    let body = LeaseBody {
        version: 1,
        unique_id: unique_id.to_owned(),
        store_id: store_id.to_owned(),
        address: storage.address(),
        holder: String::new(),
        lock: None,
        // Whoever remembers a term here finds an earlier one, and waits as if there were no object.
        term: 0,
        free: true,
        acts_until: Timestamp::UNIX_EPOCH,
        ttl_seconds: TTL_MIN.as_secs(),
        writer: format!("{:032x}", rand::random::<u128>()),
        next: None,
    };
    let over_all = mutant::on(Mutant::R6StoreNamedOverAll);
    let condition = if over_all { Condition::Always } else { Condition::IfAbsent };
    match put_or_look(storage, &body, condition) {
        Ok(_) => Ok(body),
        // Somebody was first; or it is not known whether we were, and the object tells.
        Err(error) if error.kind() == ErrorKind::PreconditionFailed || error.is_retryable() => match read(storage) {
            Ok(Some((_, found))) => Ok(found),
            _ => Err(error.at("say which store this is")),
        },
        Err(error) => Err(error.at("say which store this is")),
    }
}
