//! What a worker says to coordinators, and hears: records over `/v1/work`.

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use verger_coordinator::api::work::{Ended, Heard, Instructions, Names, Presence, Ready, Said, Task, View, Word};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::envelope::{self, Kind};
use verger_proto::queue::Hint;
use verger_proto::{Command, CommandId, OutputRef, Pool, RepositoryId};

use crate::client::Client;

/// Coordinators, as a worker speaks to them.
pub(super) struct Link {
    client: Client,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Says that a worker is there, or goes.
    pub(super) fn presence(&self, presence: &Presence) -> Result<Instructions> {
        self.must(&Method::POST, "/v1/work/presence", Some(&encode(presence)?), true)
    }

    /// Asks for a cycle.
    pub(super) fn next(&self, ready: &Ready) -> Result<Option<Task>> {
        let answer = self.client.record(&Method::POST, "/v1/work/next", Some(&encode(ready)?), false)?;
        answer.map(|bytes| decode(&bytes)).transpose()
    }

    /// Says how a cycle ended.
    pub(super) fn ended(&self, ended: &Ended) -> Result<()> {
        self.client.record(&Method::POST, "/v1/work/ended", Some(&encode(ended)?), true).map(drop)
    }

    /// Shards that nobody does.
    pub(super) fn jobs(&self, pools: &[Pool]) -> Result<Vec<Hint>> {
        let pools: Vec<&str> = pools.iter().map(Pool::as_str).collect();
        self.must(&Method::GET, &format!("/v1/work/jobs?pools={}", pools.join(",")), None, true)
    }

    /// Says a command; under one number, however often it takes to get through.
    pub(super) fn say(&self, command: Command) -> Result<Heard> {
        let id = CommandId(rand::Rng::random(&mut rand::rng()));
        self.must(&Method::POST, "/v1/work/commands", Some(&encode(&Said { id, command })?), true)
    }

    /// Says how far a job is, if somebody hears it at once: a claim is kept alive by whoever says it.
    pub(super) fn progress(&self, word: &Word) -> Result<()> {
        self.client.record_once("/v1/work/progress", &encode(word)?)
    }

    /// The state of a repository, as soon as it is another than the one with the digest `seen`.
    pub(super) fn view(&self, repository: &RepositoryId, seen: &str) -> Result<View> {
        self.must(&Method::GET, &format!("/v1/work/state?repository={repository}&seen={seen}"), None, true)
    }

    /// Has names kept beside the ledger.
    pub(super) fn keep(&self, names: &Names) -> Result<OutputRef> {
        self.must(&Method::POST, "/v1/work/evidence", Some(&encode(names)?), true)
    }

    fn must<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        is_repeatable: bool,
    ) -> Result<T> {
        let nothing = || Error::new(ErrorKind::StoreUnavailable, "the coordinator answered with nothing");
        decode(&self.client.record(method, path, body, is_repeatable)?.ok_or_else(nothing)?)
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    envelope::encode(Kind::Work, value)
        .map_err(|error| Error::new(ErrorKind::Internal, "write a record for the coordinator").with_source(error))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    envelope::decode(Kind::Work, bytes).map_err(|error| {
        Error::new(ErrorKind::Unsupported, "read the coordinator's record")
            .with_source(error)
            .with_fix("Run workers and coordinators of versions that know each other")
    })
}
