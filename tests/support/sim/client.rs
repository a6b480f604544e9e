//! One simulated Kopia client: it sees the repository through a view that may be old, works step by step, and may sleep or
//! die between any two steps. Its clock is off by a few minutes.
//!
//! It keeps to what R27 asks of clients: what it deduplicated against is protected by a snapshot or a checkpoint within a day of
//! the view that it saw it in. A client that slept for too long dies instead of publishing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use verger_kopia::Repository;
use verger_kopia::clock::Timestamp;
use verger_kopia::index_set::epoch::EpochState;
use verger_kopia::manifest::ManifestEntry;
use verger_kopia::manifest::entry::encode;
use verger_kopia::storage::BlobId;

use super::files::{FILES, Files, TREE};
use super::lens::{Lens, View};
use super::model::{Change, Model, Snapshot};
use super::session::{Session, is_there};
use super::trace::{Trace, kind};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The longest nap; an epoch is a day or more.
const NAP_MAX: Duration = Duration::from_secs(22 * 3600);

/// `indexRefreshFrequency` in `repo/content/committed_read_manager.go`.
const VIEW_LIFE: Duration = Duration::from_secs(15 * 60);
/// A quarter of `EpochRefreshFrequency`: a write begins with three quarters of it left.
const EPOCH_LIFE: Duration = Duration::from_secs(5 * 60);
/// `flushPackIndexTimeout` in `repo/content/content_manager.go`.
const FLUSH_EVERY: Duration = Duration::from_secs(10 * 60);
/// `DefaultCheckpointInterval` in `snapshot/upload/upload.go`.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(45 * 60);
/// Least time from mark to drop is a day; a mark may become visible two minutes after its time, and a look be as old.
const PROTECTED_WITHIN: Duration = Duration::from_secs(23 * 3600 + 30 * 60);
/// What a reader with an older view finds gone, it may find gone (R20: moved contents stay for an hour at their old place).
const READABLE_FOR: Duration = Duration::from_secs(55 * 60);
/// From so many manifest contents on, clients compact.
const MANIFEST_CONTENTS_MAX: usize = 16;

/// What a step may touch.
pub struct Scene<'a> {
    pub repository: &'a Repository,
    pub files: &'a Files,
    pub lens: &'a mut Lens,
    pub model: &'a mut Model,
    pub trace: &'a mut Trace,
    /// The true time; the store's clock shows it too.
    pub now: Timestamp,
}

/// A finding: what must not be.
pub type Finding = String;

type Step<T = ()> = Result<T, Stop>;

/// Why a step did not come to its end.
enum Stop {
    /// The client's process ends.
    Dies(&'static str),
    Found(Finding),
}

impl From<verger_kopia::Error> for Stop {
    fn from(error: verger_kopia::Error) -> Self {
        Self::Found(format!("a client cannot go on: {}", error.chain()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    File,
    Checkpoint,
    Finish,
    Expire,
    DeleteOne,
    Compact,
    Restore,
    Store,
    Epoch,
    Index,
    Confirm,
    Unmark,
    End,
}

const FLUSH: [Deed; 5] = [Deed::Store, Deed::Epoch, Deed::Index, Deed::Confirm, Deed::Unmark];

/// A snapshot that is being made.
#[derive(Default)]
struct Upload {
    /// All places, and how far it is.
    tree: BTreeMap<usize, usize>,
    done: BTreeMap<usize, usize>,
    /// Files that the snapshot before had in the same place: taken over without a look, as `findCachedEntry` does.
    cached: BTreeSet<usize>,
    checkpoints: Vec<String>,
}

pub struct Client {
    number: usize,
    dice: SmallRng,
    /// Seconds that its clock is ahead.
    offset: i64,
    keep: usize,
    /// Most seconds between two files.
    pace: u64,
    tree: BTreeMap<usize, usize>,
    previous: Option<(String, BTreeMap<usize, usize>)>,
    todo: VecDeque<Deed>,
    view: Option<Arc<View>>,
    view_until: Timestamp,
    /// Naps since the epochs were looked at that it did not notice.
    epoch_slept: Duration,
    epoch: Option<(u64, Timestamp)>,
    session: Session,
    upload: Upload,
    begun: Timestamp,
    flushed: Timestamp,
    checkpointed: Timestamp,
    /// The oldest sight of a content that nothing of this client protects yet.
    basis: Option<Timestamp>,
    changes: Vec<Change>,
    written: Option<BlobId>,
}

impl Client {
    pub fn new(number: usize, seed: u64, now: Timestamp) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed ^ (0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1)));
        let tree = (0..TREE).map(|place| (place, dice.random_range(0..FILES))).collect();
        Self {
            number,
            offset: dice.random_range(-295..=295),
            keep: dice.random_range(1..=4),
            pace: *[30, 200, 1800].choose(&mut dice).unwrap(),
            dice,
            tree,
            previous: None,
            todo: VecDeque::new(),
            view: None,
            view_until: now,
            epoch_slept: Duration::ZERO,
            epoch: None,
            session: Session::default(),
            upload: Upload::default(),
            begun: now,
            flushed: now,
            checkpointed: now,
            basis: None,
            changes: Vec::new(),
            written: None,
        }
    }

    /// Does the next step. How long until the one after it.
    pub fn step(&mut self, scene: &mut Scene<'_>) -> Result<Duration, Finding> {
        let Some(deed) = self.todo.pop_front() else {
            self.begin(scene);
            return Ok(self.seconds(1, 60));
        };
        match self.deed(deed, scene) {
            Ok(text) => {
                scene.trace.line(scene.now, &format!("c{} {deed:?} {text}", self.number));
                Ok(self.pause(deed))
            }
            Err(Stop::Dies(why)) => {
                self.die(scene, why);
                Ok(self.seconds(60, 40_000))
            }
            Err(Stop::Found(finding)) => Err(format!("client {} in {deed:?}: {finding}", self.number)),
        }
    }

    /// Everything in memory is gone; what is in the store stays.
    pub fn die(&mut self, scene: &mut Scene<'_>, why: &str) {
        if !self.todo.is_empty() {
            scene.trace.line(scene.now, &format!("c{} dies: {why}", self.number));
        }
        self.todo.clear();
        self.session = Session::default();
        self.upload = Upload::default();
        self.changes.clear();
        (self.view, self.epoch, self.basis, self.written) = (None, None, None, None);
    }

    fn clock(&self, now: Timestamp) -> Timestamp {
        now + jiff::SignedDuration::from_secs(self.offset)
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        SECOND * u32::try_from(self.dice.random_range(from..=to)).unwrap()
    }

    /// Time until the next step: what the step takes, and now and then a nap. A machine that is suspended does not notice: its
    /// caches grow no older by it.
    fn pause(&mut self, deed: Deed) -> Duration {
        let work = match deed {
            Deed::End => self.seconds(1800, 40_000),
            Deed::File => self.seconds(1, self.pace),
            _ => Duration::from_millis(self.dice.random_range(20..8000)),
        };
        let nap = match self.dice.random_range(0..1000) {
            0..15 => self.seconds(600, 3 * 3600),
            // Kopia gives up what it wrote if two epochs went by until it looks again.
            15..25 if deed != Deed::Index => self.seconds(3 * 3600, NAP_MAX.as_secs()),
            _ => Duration::ZERO,
        };
        if !nap.is_zero() && self.dice.random_bool(0.5) {
            self.view_until += nap;
            self.epoch_slept += nap;
            // Two naps over one look at the epochs may be two epochs long; what Kopia takes back then is not simulated.
            if let Some((_, until)) = self.epoch.as_mut().filter(|_| self.epoch_slept <= NAP_MAX) {
                *until += nap;
            }
        }
        work + nap
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.begun = scene.now;
        (self.flushed, self.checkpointed) = (scene.now, scene.now);
        if self.dice.random_bool(0.7) {
            // A new process.
            (self.view, self.epoch, self.session) = (None, None, Session::default());
        }
        for _ in 0..self.dice.random_range(0..4) {
            self.tree.insert(self.dice.random_range(0..TREE), self.dice.random_range(0..FILES));
        }
        let mut todo = vec![Deed::Compact];
        if self.dice.random_bool(0.3) {
            todo.push(Deed::Restore);
        }
        if self.dice.random_bool(0.08) {
            todo.push(Deed::DeleteOne);
            todo.extend(FLUSH);
        } else {
            self.upload = Upload { tree: self.tree.clone(), ..Upload::default() };
            todo.extend([Deed::File; TREE]);
            todo.push(Deed::Finish);
            todo.extend(FLUSH);
            todo.push(Deed::Expire);
            todo.extend(FLUSH);
        }
        todo.push(Deed::End);
        self.todo = todo.into();
    }

    fn deed(&mut self, deed: Deed, scene: &mut Scene<'_>) -> Step<String> {
        if self.dice.random_range(0..1000) < 4 {
            return Err(Stop::Dies("killed"));
        }
        match deed {
            Deed::File => return self.file(scene),
            Deed::Checkpoint => self.snapshot(scene, false)?,
            Deed::Finish => self.snapshot(scene, true)?,
            Deed::Expire => self.expire(scene)?,
            Deed::DeleteOne => self.delete_one(scene)?,
            Deed::Compact => self.compact(scene)?,
            Deed::Restore => self.restore(scene)?,
            Deed::Store => {
                self.session.store(scene.repository)?;
                if self.session.has_packs() {
                    self.todo.push_front(Deed::Store);
                }
            }
            Deed::Epoch => self.learn_epoch(scene)?,
            Deed::Index => return self.index(scene),
            Deed::Confirm => self.confirm(scene)?,
            Deed::Unmark => {
                self.session.end(&**scene.repository.storage());
                self.flushed = scene.now;
            }
            Deed::End => {}
        }
        Ok(String::new())
    }

    /// The view, renewed if it is too old for this client.
    fn view(&mut self, scene: &mut Scene<'_>) -> Step<Arc<View>> {
        match &self.view {
            Some(view) if scene.now < self.view_until => Ok(view.clone()),
            _ => {
                let view = scene.lens.view(scene.repository, scene.now)?;
                self.view_until = scene.now + VIEW_LIFE;
                self.session.refreshed();
                self.view = Some(view.clone());
                Ok(view)
            }
        }
    }

    /// It relies on what this view shows.
    fn relies_on(&mut self, at: Timestamp) {
        self.basis = Some(self.basis.map_or(at, |basis| basis.min(at)));
    }

    /// Uploads a content, unless it is known to be there.
    fn add(&mut self, scene: &mut Scene<'_>, content: &(u8, Vec<u8>)) -> Step<bool> {
        let id = verger_kopia::content::ContentId::new(content.0, scene.repository.hasher().hash(&content.1)).unwrap();
        if self.session.has(&id) {
            return Ok(false);
        }
        let view = self.view(scene)?;
        if view.live(&id) {
            self.relies_on(view.at);
            return Ok(false);
        }
        let now = self.clock(scene.now);
        self.session.add(scene.repository, content, now, view.previous(&id))?;
        scene.model.plain.insert(id, content.1.clone());
        Ok(true)
    }

    fn file(&mut self, scene: &mut Scene<'_>) -> Step<String> {
        if self.upload.done.is_empty() {
            self.look_up_previous(scene)?;
        }
        let place = self.upload.done.len();
        let number = self.upload.tree[&place];
        self.upload.done.insert(place, number);
        let slow = scene.now.duration_since(self.begun) > (HOUR * 20).try_into().unwrap();
        let mut text = format!("{number}");
        if self.upload.cached.contains(&place) && !slow {
            self.relies_on(self.begun);
            text += " cached";
        } else {
            for (_, content) in &scene.files.get(number).contents {
                if self.add(scene, content)? {
                    text += " +";
                }
            }
        }
        let due = |since: Timestamp, every: Duration| scene.now.duration_since(since) > every.try_into().unwrap();
        let next = if due(self.checkpointed, CHECKPOINT_EVERY) {
            self.checkpointed = scene.now;
            std::iter::once(Deed::Checkpoint).chain(FLUSH).collect()
        } else if due(self.flushed, FLUSH_EVERY) && !self.session.is_empty() {
            FLUSH.to_vec()
        } else {
            Vec::new()
        };
        next.into_iter().rev().for_each(|deed| self.todo.push_front(deed));
        Ok(text)
    }

    /// Which files need no look because the last complete snapshot has them.
    fn look_up_previous(&mut self, scene: &mut Scene<'_>) -> Step {
        let view = self.view(scene)?;
        let Some((id, tree)) = &self.previous else { return Ok(()) };
        let manifests = scene.lens.manifests(scene.repository, &view)?;
        if manifests.contains_key(id) {
            self.upload.cached =
                self.upload.tree.iter().filter(|(k, v)| tree.get(k) == Some(v)).map(|(k, _)| *k).collect();
            self.begun = view.at;
        }
        Ok(())
    }

    /// Writes directories and manifest of what is there so far.
    fn snapshot(&mut self, scene: &mut Scene<'_>, complete: bool) -> Step {
        let mut needs = BTreeSet::new();
        for number in self.upload.done.values() {
            needs.extend(scene.files.get(*number).contents.iter().map(|(id, _)| *id));
        }
        let directories = scene.files.directories(scene.repository, &self.upload.done);
        let root = directories.last().unwrap().id.clone();
        for (id, content) in directories.into_iter().flat_map(|object| object.contents) {
            needs.insert(id);
            self.add(scene, &content)?;
        }
        let now = self.clock(scene.now);
        let id = format!("{:032x}", self.dice.random::<u128>());
        let mut body = json!({"id": id, "source": {"host": self.host(), "userName": "client", "path": "/data"},
            "startTime": self.clock(self.begun).to_string(), "endTime": now.to_string(), "description": "",
            "rootEntry": {"name": "data", "type": "d", "obj": root}});
        if !complete {
            body["incomplete"] = "checkpoint".into();
            self.upload.checkpoints.push(id.clone());
        } else {
            self.previous = Some((id.clone(), self.upload.done.clone()));
        }
        let labels = [("type", "snapshot"), ("hostname", &self.host()), ("username", "client"), ("path", "/data")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let data = serde_json::value::RawValue::from_string(body.to_string()).unwrap();
        self.add(scene, &(b'm', encode(&[ManifestEntry::put(id.clone(), labels, now, data)])))?;
        let snapshot = Snapshot { needs, client: self.number, complete, deleted: false };
        self.changes.push(Change::Publish(id, snapshot));
        Ok(())
    }

    fn host(&self) -> String {
        format!("host{}", self.number)
    }

    fn manifests(&mut self, scene: &mut Scene<'_>) -> Step<BTreeMap<String, ManifestEntry>> {
        let view = self.view(scene)?;
        let gone = view.manifest_contents().find(|entry| !is_there(scene.repository, entry));
        match gone {
            None => Ok(scene.lens.manifests(scene.repository, &view)?),
            Some(entry) => Err(missing(&view, scene.now, &format!("manifests in {} at {}", entry.id, entry.pack))),
        }
    }

    fn delete(&mut self, scene: &mut Scene<'_>, ids: Vec<String>) -> Step {
        if ids.is_empty() {
            return Ok(());
        }
        let now = self.clock(scene.now);
        let entries: Vec<_> = ids.iter().map(|id| ManifestEntry::deletion(id, now)).collect();
        self.add(scene, &(b'm', encode(&entries)))?;
        self.changes.push(Change::Delete(ids));
        Ok(())
    }

    /// Retention: the newest of its own stay; its checkpoints are not needed any more.
    fn expire(&mut self, scene: &mut Scene<'_>) -> Step {
        let manifests = self.manifests(scene)?;
        let mine = |id: &&String| scene.model.snapshots.get(*id).is_some_and(|s| s.client == self.number && s.complete);
        let mut complete: Vec<(Timestamp, String)> =
            manifests.keys().filter(mine).map(|id| (manifests[id].modified, id.clone())).collect();
        complete.sort();
        let surplus = complete.len().saturating_sub(self.keep);
        let mut ids: Vec<String> = complete.into_iter().take(surplus).map(|(_, id)| id).collect();
        ids.extend(std::mem::take(&mut self.upload.checkpoints));
        self.delete(scene, ids)
    }

    /// Somebody deletes a snapshot of anybody.
    fn delete_one(&mut self, scene: &mut Scene<'_>) -> Step {
        let manifests = self.manifests(scene)?;
        let complete = |id: &&String| scene.model.snapshots.get(*id).is_some_and(|snapshot| snapshot.complete);
        let ids: Vec<String> = manifests.keys().filter(complete).cloned().collect();
        let chosen = ids.choose(&mut self.dice).cloned();
        self.delete(scene, chosen.into_iter().collect())
    }

    /// Many manifest contents become one (`repo/manifest/committed_manifest_manager.go`), in one index blob.
    fn compact(&mut self, scene: &mut Scene<'_>) -> Step {
        let view = self.view(scene)?;
        if view.manifest_contents().count() < MANIFEST_CONTENTS_MAX {
            return Ok(());
        }
        let manifests: Vec<ManifestEntry> = self.manifests(scene)?.into_values().collect();
        self.relies_on(view.at);
        let merged = encode(&manifests);
        let now = self.clock(scene.now);
        let id = self.session.add(scene.repository, &(b'm', merged.clone()), now, None)?;
        scene.model.plain.insert(id, merged);
        let old: Vec<_> = view.manifest_contents().filter(|entry| entry.id != id).cloned().collect();
        for entry in &old {
            self.session.mark(scene.repository, entry, now)?;
        }
        scene.trace.line(scene.now, &format!("c{} merges {} manifest contents", self.number, old.len()));
        FLUSH.into_iter().rev().for_each(|deed| self.todo.push_front(deed));
        Ok(())
    }

    /// Reads a snapshot through its view.
    fn restore(&mut self, scene: &mut Scene<'_>) -> Step {
        let manifests = self.manifests(scene)?;
        let view = self.view(scene)?;
        let known: Vec<&String> = manifests.keys().filter(|id| scene.model.snapshots.contains_key(*id)).collect();
        let Some(id) = known.choose(&mut self.dice) else { return Ok(()) };
        for content in &scene.model.snapshots[*id].needs {
            match view.winners.get(content) {
                None => {
                    return Err(Stop::Found(format!("snapshot {id} needs {content}, which its view does not have")));
                }
                Some(entry) if !is_there(scene.repository, entry) => {
                    return Err(missing(&view, scene.now, &format!("content {content} of snapshot {id}")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn learn_epoch(&mut self, scene: &mut Scene<'_>) -> Step {
        if !scene.repository.config().epoch.enabled {
            return Ok(());
        }
        if self.epoch.is_none_or(|(_, until)| scene.now >= until) {
            let state = EpochState::load(scene.repository)?;
            self.epoch = Some((state.write_epoch, scene.now + EPOCH_LIFE));
            self.epoch_slept = Duration::ZERO;
        }
        Ok(())
    }

    fn index(&mut self, scene: &mut Scene<'_>) -> Step<String> {
        let late = |basis: Timestamp| scene.now.duration_since(basis) > PROTECTED_WITHIN.try_into().unwrap();
        if self.basis.is_some_and(late) {
            return Err(Stop::Dies("it slept for too long"));
        }
        self.written = self.session.publish(scene.repository, self.epoch.map(|(epoch, _)| epoch))?;
        let mut text = self.written.as_ref().map_or("", |blob| kind(blob.as_str())).to_owned();
        for change in std::mem::take(&mut self.changes) {
            match &change {
                Change::Publish(id, snapshot) => {
                    self.basis = None;
                    text += &format!(
                        " {} {} ({})",
                        if snapshot.complete { "snapshot" } else { "checkpoint" },
                        &id[..6],
                        snapshot.needs.len()
                    );
                }
                Change::Delete(ids) => ids.iter().for_each(|id| text += &format!(" deletes {}", &id[..6])),
            }
            scene.model.apply(change);
        }
        Ok(text)
    }

    /// Kopia takes back what it wrote if its epoch was over by two.
    fn confirm(&mut self, scene: &mut Scene<'_>) -> Step {
        let (Some(_), Some((epoch, _))) = (self.written.take(), self.epoch) else { return Ok(()) };
        let now = EpochState::load(scene.repository)?.write_epoch;
        if now < epoch + 2 {
            return Ok(());
        }
        Err(Stop::Found(format!("epochs passed too fast: {epoch} was written to, and it is {now}")))
    }
}

/// What a view shows must be there, as long as a client may have such a view.
fn missing(view: &View, now: Timestamp, what: &str) -> Stop {
    if now.duration_since(view.at) > READABLE_FOR.try_into().unwrap() {
        return Stop::Dies("its view is too old");
    }
    let age = now.duration_since(view.at);
    Stop::Found(format!("{what} is gone; the view is only {age:#} old"))
}
