use verger_proto::{Command, Event};

use super::super::LedgerEvents;
use super::*;
use crate::ledger::file::FileLedger;
use crate::ledger::{Entry, Ledger};
use crate::testing::{options, repository, worker};

/// A ledger in which cycles come and go.
struct Rig {
    folder: tempfile::TempDir,
    ledger: FileLedger,
    at: u64,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = FileLedger::open(folder.path(), |_| Ok(())).unwrap();
        Self { folder, ledger, at: 1_700_000_000_000 }
    }

    fn happen(&mut self, events: Vec<Event>) {
        self.at += 1_500;
        self.ledger.append(LogTime(self.at), &Entry { command: Command::Tick, events }).unwrap();
    }

    fn cycles(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let (cycle, mode) = (CycleId(number), if number % 3 == 0 { Mode::Full } else { Mode::Quick });
            let term = verger_proto::Term(1);
            let opened = Event::CycleOpened { cycle, repository: repository(), term, options: options(mode) };
            let (job, stage, shard) =
                (verger_proto::JobId(1), verger_proto::Stage::Survey, verger_proto::Shard::whole());
            let ticket = verger_proto::Ticket { cycle, job, attempt: 1, term, worker: worker("w1") };
            let offered = Event::JobOffered { cycle, job, stage, shard, attempt: 1 };
            self.happen(vec![opened, offered, Event::JobClaimed { ticket: ticket.clone() }]);
            let completed = Event::JobCompleted { ticket, outputs: Vec::new(), stats: Vec::new(), view: None };
            let end = if number % 5 == 0 { CycleEnd::Aborted("enough".to_owned()) } else { CycleEnd::Done };
            self.happen(vec![completed, Event::CycleClosed { cycle, end }]);
        }
    }

    fn events(&self) -> LedgerEvents {
        LedgerEvents::new(self.folder.path())
    }

    /// What is counted from the beginning.
    fn counted(&self) -> Board {
        let mut board = Board::default();
        board.catch_up(&self.events()).unwrap();
        board
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("figures")
    }
}

#[test]
fn what_was_counted_before_and_since_is_what_is_counted_from_the_beginning() {
    let mut rig = Rig::new();
    for step in 0..6 {
        rig.cycles(step * 7 + 1..step * 7 + 8);
        let events = rig.events();
        let mut board = load(&events);
        assert_eq!(board.next, step * 14, "it goes on from where it was");
        board.catch_up(&events).unwrap();
        assert_eq!(board, rig.counted());
        keep(&events, &board);
    }
    assert_eq!(load(&rig.events()).next, 84);
}

#[test]
fn nothing_is_read_twice() {
    let mut rig = Rig::new();
    rig.cycles(1..400);
    keep(&rig.events(), &rig.counted());
    rig.cycles(400..402);
    let events = rig.events();
    let mut board = load(&events);
    // The beginning of the ledger cannot be read any more, and nobody misses it.
    let path = rig.folder.path().join("ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..1_000].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    board.catch_up(&events).unwrap();
    assert_eq!((board.next, board.ends.values().sum::<u64>()), (802, 401));
    assert_eq!(events.newest(), 802);
}

#[test]
fn figures_of_another_ledger_or_none_are_counted_again() {
    let (mut rig, mut other) = (Rig::new(), Rig::new());
    rig.cycles(1..20);
    other.cycles(2..40);
    keep(&other.events(), &other.counted());
    std::fs::copy(other.file(), rig.file()).unwrap();
    // Long enough that the place is in both.
    rig.cycles(20..80);
    assert_eq!(load(&rig.events()), Board::default());
    keep(&rig.events(), &rig.counted());
    assert_eq!(load(&rig.events()), rig.counted());
    let good = std::fs::read(rig.file()).unwrap();
    for at in (0..good.len()).step_by(37) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(rig.file(), &bad).unwrap();
        assert_eq!(load(&rig.events()), Board::default(), "byte {at}");
        std::fs::write(rig.file(), &good[..at]).unwrap();
        assert_eq!(load(&rig.events()), Board::default(), "cut at {at}");
    }
    std::fs::remove_file(rig.file()).unwrap();
    assert_eq!(load(&rig.events()), Board::default());
}

#[test]
fn a_ledger_whose_end_comes_later_is_waited_for() {
    let mut rig = Rig::new();
    rig.cycles(1..20);
    keep(&rig.events(), &rig.counted());
    let path = rig.folder.path().join("ledger");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let again = path.clone();
    let log = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        std::fs::write(again, whole).unwrap();
    });
    assert_eq!(load(&rig.events()).next, 38);
    log.join().unwrap();
}
