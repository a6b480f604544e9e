//! Rules taken out on purpose, one at a time, so that tests can show that they would notice (`tests/mutants.py`).
//!
//! Each mutant is a way of losing data. Which one is on is chosen when a test build with the feature `mutants` starts, by the name in
//! `VERGER_MUTANT`. Without the feature [`on`] is a constant, so that nothing of this is in a program; with it, a build without debug
//! assertions (a release) does not compile.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` takes safety rules out: it is for tests, and never for a release build");

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A rule of `docs/safety.md` that is taken out: what is missing then, and how data goes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

mutants! {
    /// R1: requests have no deadline. A process that slept wakes, and publishes what points at packs that are gone by then.
    R1NoDeadline,
    /// R1: nobody is asked for an approval. A worker that was given up publishes and deletes beside its successor.
    R1NobodyAsked,
    /// R1: nobody looks at what came since the plan's view. A content that a client wrote again is marked all the same.
    R1NoSecondLook,
    /// R1: an index set is taken back after its deadline. Who took over counts on it, and the packs that it replaced are gone.
    R1TakenBackLate,
    /// R1: a pack that a newer entry names is deleted. That entry was all there was of its content.
    R1NamedPackDeleted,
    /// R2: boot time does not end a deadline. Setting the wall clock back brings an old approval to life.
    R2BootTimeIgnored,
    /// R2: wall time does not end a deadline. Where boot time stands still in sleep, eight hours look like a second.
    R2WallTimeIgnored,
    /// R2: the time of a slow look is given on top. The request is late for the lease that was announced before it.
    R2TimeOfTheLookGiven,
    /// R2: a pause between two attempts of a deletion is taken for as long as it was meant to be. A machine that slept deletes long after.
    R2PauseTrusted,
    /// R3: the next term is counted from one's own memory. Another fleet's is higher, and the loser's orders look newer.
    R3TermOfMemoryAlone,
    /// R3: the next term is counted from the object alone. Where it was lost, terms begin again, and old orders look newer.
    R3TermOfObjectAlone,
    /// R3: `maintain` takes the lease in a store that nobody tried. Where conditions are taken and ignored, two take it at once.
    R3UntriedStoreTrusted,
    /// R4: the last requests of a dead holder are not waited out. They take effect beside those of the new one.
    R4DeadHolderNotWaitedOut,
    /// R4: a lease that somebody holds is taken. Two maintainers delete what the other's plan counts on.
    R4HeldLeaseTaken,
    /// R4: "free" is written with a request still under way. The next one does not wait, and the request comes late.
    R4FreedTooEarly,
    /// R4: a lock on a file that was swapped counts. Two processes hold "the" lock of a local disk.
    R4SwappedLockCounts,
    /// R4: the holder acts as long as the object says, beyond 120 s. The next one waits 180 s, and that is not enough.
    R4ActsWithoutEnd,
    /// R4: the last requests of a holder that our machine fenced are not waited out. It was only paused: what it sent
    /// comes beside the new one's.
    R4FencedNotWaitedOut,
    /// R4: any lease in our name counts as one that our machine fenced. Two fleets of one name take it from each other while they work.
    R4FencedTermNotCompared,
    /// R4: a lease in our name that our machine knows nothing of counts as one of its drives, whoever wrote it. A copy of the fleet takes
    /// it from the original at work, and the original takes it back.
    R4UntoldOfAnybody,
    /// R4: a lease is freed by hand while requests of the holder before may be under way.
    R4FreedWhileWaitedOut,
    /// R4: "free" is written while the requests of the holder before are waited out. The next one does not wait for them.
    R4FreedInTheWait,
    /// R5: the lease is neither renewed nor looked at before a batch. Somebody took it over meanwhile, and acts too.
    R5LeaseNotKept,
    /// R5: approvals last although no renewal was confirmed. The next holder waited less than they last.
    R5UnconfirmedLeaseCounts,
    /// R6: the store ID of a copied lease is believed. Two stores share one ledger, whose dead sessions are alive in the other.
    R6StoreIdOfACopy,
    /// R6: a lease that is remembered and gone is not waited for. Its holder may be at work in the same second.
    R6MissingLeaseIsFree,
    /// R6: the lease of another repository is taken for one's own. Orders of one are carried out on the other.
    R6LeaseOfAnother,
    /// R6: the term is not remembered before anything is done. A lease removed under its holder is not missed.
    R6TermForgotten,
    /// R6: which store it is, is said over whatever lease is there. Its holder acts, and the next one finds it free.
    R6StoreNamedOverAll,
    /// R6: a lease that is remembered and is free under an earlier term is not waited for. It was lost under its holder, who may be at
    /// work in the same second.
    R6EarlierLeaseIsFree,
    /// R6: a fleet that held a lease here takes the store for the one that another fleet names. What is over in the one counts as over in
    /// the other.
    R6UsedStoreRenamed,
    /// R7: what no summary covers counts as a leaf. Files behind old seek tables look unused, and are collected.
    R7UncoveredIsLeaf,
    /// R8: a large directory counts as a file of fragments. Nothing that it lists is found, and all of it is collected.
    R8LargeDirectoryIsFile,
    /// R10: the age of a pack by the store's clock does not count. A client whose clock is behind loses what it just wrote.
    R10PackAgeIgnored,
    /// R10: manifests are those of an older view. A snapshot between the two views is in neither, and its contents are marked.
    R10ManifestsOfOlderView,
    /// R10: the clocks of machine and store may differ by any time. Ages are wrong, and contents of this minute look a day old.
    R10AnyClock,
    /// R10: what the plan rests on may be of another view than the cycle's.
    R10OutputsOfAnotherView,
    /// R11: a directory that cannot be read lists nothing. Everything below it is collected.
    R11UnreadableDirectoryIsEmpty,
    /// R11: manifests that cannot be read are absent. The snapshots in them lose everything.
    R11UnreadableManifestIsAbsent,
    /// R11: a snapshot that cannot be understood is absent, as for Kopia. Its contents are collected.
    R11StrangeSnapshotIsAbsent,
    /// R11: an index blob that cannot be read is empty. All that it alone names looks like an orphan.
    R11UnreadableIndexIsEmpty,
    /// R11: half of an index set counts as all of it. The packs of the other half look like orphans.
    R11HalfASetIsWhole,
    /// R11: a content that no entry names is nobody's. An index is lost, and the packs that could restore it are deleted.
    R11MissingIsNothing,
    /// R11: a session whose marker cannot be read is over. The packs of a client at work are deleted.
    R11UnreadableSessionIsOver,
    /// R11: damage stops neither marks nor drops (facts and machine). What only the damaged directory names is collected.
    R11DamageStopsNothing,
    /// R11: a lost index stops nothing (facts and machine). The packs that could restore it are deleted.
    R11LostIndexStopsNothing,
    /// R11: while something is unreadable, packs go that only hidden marks name. They held what the damaged directory lists.
    R11HiddenPackDeleted,
    /// R11: a quick cycle does not know that an index may be lost, and cannot see it.
    R11QuickForgetsTheLoss,
    /// R11: a newer snapshot that cannot be read needs nothing. What it needs is marked and deleted in this very cycle.
    R11UnreadableNewcomerIsEmpty,
    /// R11: a compaction log of the legacy index that cannot be read is absent. Index blobs that it replaced come back.
    R11UnreadableLogIsAbsent,
    /// R12: the parts of a sweep need not add up. A lost shard counts as unused contents.
    R12PartsNotAdded,
    /// R12: a stage ends with items left. The cycle goes on as if its marks or revivals were all there.
    R12UncoveredIsDone,
    /// R12: a shard of a reading stage can be gone around. What it would have found in use is collected.
    R12ReadingGoneAround,
    /// R12: what no part of a stage has a line for counts as read. A shard that was lost looks like nothing to read.
    R12MissingShardIgnored,
    /// R12: a part without records counts, whatever was reported. What its shard found is not there for the plan.
    R12EmptyPartIsNothing,
    /// R12: a part that does not open counts as absent. A key or a byte that is wrong looks like nothing to read.
    R12UndecryptableIsAbsent,
    /// R13: a content is revived where it lies. Another maintainer's deletion of that pack is under way.
    R13RevivedInPlace,
    /// R14: newer snapshots are not walked. What they took over from dying contents is collected.
    R14NewcomersNotWalked,
    /// R14: what newer snapshots need is not revived before a drop or a deletion.
    R14NothingRevived,
    /// R14: a batch is approved on a view of any age. Snapshots since then are not in it.
    R14OldViewApproved,
    /// R14: what a client wrote between the look and a legacy compaction goes into it unseen. Its snapshot is never walked.
    R14UnseenInCompaction,
    /// R15: marks are dropped without the wait. A client that slept comes back to a snapshot whose contents are gone.
    R15NoWait,
    /// R15: one snapshot GC is enough for a drop. A client between deduplication and manifest loses.
    R15OneGcIsEnough,
    /// R16: every attempt has the same set ID. Readers take parts of two attempts for one whole set, and half the index is gone.
    R16OneSetId,
    /// R16: a compacted set is not read back. What replaced all older index blobs may be cut short.
    R16NotReadBack,
    /// R16: parts of a set that another maintainer is writing are deleted. The set is never whole, and what it replaces is gone.
    R16YoungPartsDeleted,
    /// R17: a parked cycle goes on with a view of any age. Two days of snapshots are not in it.
    R17OldViewGoesOn,
    /// R18: a drop takes marks of one second more than the plan counted. Their packs were not looked at.
    R18DropTakesMore,
    /// R19: the tag of a copied content is not checked. The copy is damaged, and the good one, elsewhere, goes with its pack.
    R19TagNotChecked,
    /// R19: young manifest contents are copied. A copy from a stale view brings deleted snapshots back, without their contents.
    R19YoungManifestsCopied,
    /// R19: marks are copied. Their age begins again in a pack that nobody planned.
    R19MarksCopied,
    /// R19: what ECC repaired is copied as it was stored. The next damaged byte is one too many.
    R19DamagedParityCopied,
    /// R20: no record stands before the first entry of a rewrite. After a crash Kopia deletes the old packs at once.
    R20NoRecordBeforeRewrite,
    /// R20: snapshot GC is recorded before its marks. After a crash Kopia drops marks that no second GC has seen.
    R20GcRecordedFirst,
    /// R21: packs are written without a session marker. Another maintainer deletes them before an index names them.
    R21NoMarker,
    /// R21: other processes' sessions count as over. Packs of a client at work are deleted.
    R21ForeignSessionIsOver,
    /// R21: a worker writes shards in the session of an earlier cycle, whose marker is gone. Another maintainer deletes the packs.
    R21SessionOfAnotherCycle,
    /// R21: sessions under the present term count as over for a fleet. Packs of its own process at work are deleted.
    R21PresentSessionIsOver,
    /// R22: nobody notices a new owner. Its run and ours delete from two plans.
    R22NewOwnerIgnored,
    /// R22: nobody notices that another maintainer wrote the schedule. Both runs go on.
    R22ForeignScheduleIgnored,
    /// R22: after a takeover nobody waits for Kopia's run. It looked at its owner once, and goes on deleting.
    R22NoQuietPeriod,
    /// R22: Kopia's own lock is not respected. A Kopia of this machine is in the middle of its run.
    R22BusyLockIgnored,
    /// R22: the next full time of Kopia is left in the past. Its own run begins in the middle of ours.
    R22KopiaIsDue,
    /// R22: nobody asks who the owner is (before the cycle and after its survey). Two owners delete from two plans.
    R22AnybodyIsOwner,
    /// R22: nobody notices that another maintainer compacted the index or moved the watermark. The plan is about what is not there.
    R22ForeignIndexWorkIgnored,
    /// R23: without conditional writes no word is needed. Two maintainers take the lease at once.
    R23UnconditionalLease,
    /// R23: margins are dropped without a word (command and machine). Clients at work lose what they just wrote.
    R23NoWordForNoMargins,
    /// R25: decompression ends where the stream ends. A few kilobytes take all memory, and the cycle dies in the middle.
    R25Uncapped,
    /// R26: nothing is estimated before it is read. The machine runs out of memory in the middle of a cycle.
    R26NoEstimate,
    /// R27: only the first batch looks at what is new. Later approvals name a view that nobody looked at.
    R27LooksOnce,
    /// I1: an upgrade lock is not respected. Entries go where nobody reads any more.
    I1UpgradeLockIgnored,
    /// I1: an upgrade that begins in the middle of a cycle is not noticed.
    I1UpgradeMissed,
    /// I2: the recorded start of a GC is its end. Marks look as if a later GC had seen them, and drop too early.
    I2LateStart,
    /// I3: manifest contents are marked like any other. Snapshots disappear.
    I3ManifestsMarked,
    /// I3: what is marked and needed is not revived. The next drop takes it.
    I3NothingRevived,
    /// I5: the watermark is an hour ahead. Every mark of that hour is gone at once, with no time to change one's mind.
    I5WatermarkAhead,
    /// I6: marks do not count as references. An undelete finds its pack gone.
    I6MarksDoNotCount,
    /// I6: blobs that came after the cycle's start are deleted. No view that it has can name them.
    I6NewBlobDeleted,
    /// S2: young packs are deleted. Their index entries are still on the way.
    S2YoungPackDeleted,
    /// S2: a plan that the independent check finds wrong is carried out.
    S2CheckUnheard,
    /// I7: orphans of a rewrite go at once. Readers with an older index look for them.
    I7NoHour,
    /// I8: a moved content is published although its winner changed. Deleted ones come back, without what they need.
    I8ChangedWinnerMoved,
    /// I9: a mark names another place than its winner's. An undelete finds other bytes there.
    I9MarkElsewhere,
    /// I10: an epoch's compaction leaves marks out. Older live entries in other epochs come back, and their packs are gone.
    I10CompactionDropsMarks,
    /// I10: logs of legacy compactions go before their inputs. The inputs are active again, with all that was dropped.
    I10LogBeforeInputs,
    /// I11: epochs are compacted before they are settled. What a slow client still writes there is never read.
    I11UnsettledCompacted,
    /// I11: an incomplete set replaces its epoch. The index blobs it lacks are deleted.
    I11HalfASetReplaces,
    /// I11: a blob that came into an epoch since its compaction began is left out of the set that replaces it.
    I11LateBlobLeftOut,
    /// I11: what a set replaces goes at once. Clients that listed before the set was there look for it.
    I11SupersededAtOnce,
    /// I12: entries are published without their packs.
    I12EntriesWithoutPacks,
    /// I12: the marker of a session goes before its entries are there. Its packs look like orphans that nobody protects.
    I12MarkerGoneFirst,
    /// I12: a set that came too late into an old epoch stands. The epoch was compacted without it.
    I12LateSetStands,
    /// I13: a new entry may be as old as the one it replaces. Readers take either.
    I13NotLater,
    /// I14: the schedule is written without looking at who wrote it meanwhile. Another owner's records are gone, and it deletes early.
    I14RecordsOverwritten,
    /// S3: any signature of a message in the work queue holds. Whoever may publish there speaks as a coordinator.
    S3AnySignatureHolds,
    /// S3: messages of any length are kept and read. Whoever may publish there fills the queue and the workers' memory.
    S3AnyLengthIsRead,
    /// S3: orders under an older term are heard. A worker that was given up does deeds beside its successor.
    S3OldTermHeard,
    /// S3: an earlier attempt at a job is heard. Two workers do the same batch from two states.
    S3OldAttemptHeard,
    /// S5: no word is needed, however much goes. A wrong password to a new bucket, and the old backups are "unused".
    S5MuchWithoutAWord,
    /// S5: no word is needed to leave nothing.
    S5AllWithoutAWord,
    /// S6: nothing is written down before it is done. Nobody can say why a blob is gone.
    S6NoEvidence,
    /// S7: a failed cycle is not due any more. What it left half done stays so.
    S7FailureIsTheEnd,
    /// S7: what the work queue has acknowledged is not offered again. The message is lost, and what it was of is never done.
    S7AckBelieved,
    /// S7: a claim has no end. Its worker is dead, and what it had is never done.
    S7ClaimForEver,
    /// S7: a lead says nothing while a stage of his is at work. What takes longer than a claim lasts is taken away, again and again.
    S7LeadIsSilent,
    /// S9: the master key is in the debug text of a repository, and so in a log.
    S9KeyInDebug,
    /// S9: a secret of a store is shown in debug texts, and so in a log.
    S9SecretInDebug,
    /// P2: a deed is approved before its plan is sealed. What nobody checked is deleted.
    P2DeedBeforeSeal,
    /// P2: an approval lasts a millisecond longer than the lease that it rests on. The next holder acts beside the last request.
    P2OneMillisecondMore,
    /// P3: a command is answered before it is on the disk. After a loss of power nobody knows an approval that was carried out.
    P3AckBeforeSync,
    /// P3: a node with another disk under its old number is heard. It votes twice, and two leaders approve.
    P3OldDiskHeard,
    /// P4: the machine reads a clock. Each replica has another state, and approves another thing once it leads.
    P4ClockInApply,
    /// P5: a command that is asked again counts again. Its answer was lost, and its deed is done twice.
    P5AskedAgainIsNew,
    /// P6: the level of a cluster is raised without asking its members. One of them applies a command in another way, or not at all.
    P6NobodyAskedForItsLevel,
}

/// Whether this rule is taken out now.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn on(_: Mutant) -> bool {
    false
}

/// Whether this rule is taken out now: by the name in `VERGER_MUTANT`, read once.
#[cfg(feature = "mutants")]
#[must_use]
pub fn on(mutant: Mutant) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("VERGER_MUTANT").ok()?;
        let found = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
        Some(*found.unwrap_or_else(|| panic!("VERGER_MUTANT names no mutant: {name:?}")))
    });
    *chosen == Some(mutant)
}
