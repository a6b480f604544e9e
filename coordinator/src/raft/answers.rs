//! What was answered to the last commands, by their numbers: a command that is asked again is answered again and not applied again.
//! Part of the replicated state, so every replica forgets the same at the same entry.

use std::collections::{BTreeMap, VecDeque};

use verger_kopia::mutant::{self, Mutant};
use verger_proto::envelope::{self, Kind};
use verger_proto::{CommandId, Event};

/// So many answers are kept. Whoever asks again does so within seconds.
pub(crate) const ANSWERS_MAX: usize = 8192;
/// So many bytes of answers are kept, and the newest in any case: a few long ones must not make every snapshot long.
pub(crate) const BYTES_MAX: usize = 4 << 20;

/// The last answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Answers {
    by_id: BTreeMap<CommandId, (Vec<Event>, usize)>,
    order: VecDeque<CommandId>,
    bytes: usize,
}

impl Answers {
    pub(crate) fn get(&self, id: CommandId) -> Option<&Vec<Event>> {
        let known = self.by_id.get(&id).filter(|_| !mutant::on(Mutant::P5AskedAgainIsNew));
        known.map(|(events, _)| events)
    }

    /// Keeps an answer. A command that changed nothing has none, and may be applied again.
    pub(crate) fn keep(&mut self, id: CommandId, events: &[Event]) {
        if events.is_empty() || self.by_id.contains_key(&id) {
            return;
        }
        // What cannot be written is longer than all of this.
        let bytes = envelope::encode(Kind::Event, &events).map_or(BYTES_MAX, |record| record.len());
        self.by_id.insert(id, (events.to_vec(), bytes));
        self.order.push_back(id);
        self.bytes = self.bytes.saturating_add(bytes);
        while self.order.len() > ANSWERS_MAX || self.bytes > BYTES_MAX && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|oldest| self.by_id.remove(&oldest));
            self.bytes = self.bytes.saturating_sub(oldest.map_or(0, |(_, bytes)| bytes));
        }
    }

    /// From the oldest to the newest.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CommandId, &Vec<Event>)> {
        self.order.iter().filter_map(|id| self.get(*id).map(|events| (*id, events)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_proto::CycleId;

    #[test]
    fn the_oldest_answers_go_first_and_empty_ones_are_not_kept() {
        let mut answers = Answers::default();
        let events = |n| vec![Event::CycleJoined { cycle: CycleId(n) }];
        answers.keep(CommandId(1 << 100), &[]);
        for n in 0..=ANSWERS_MAX as u64 {
            answers.keep(CommandId(u128::from(n)), &events(n));
        }
        assert_eq!((answers.get(CommandId(1 << 100)), answers.get(CommandId(0))), (None, None));
        assert_eq!(answers.get(CommandId(1)), Some(&events(1)));
        assert_eq!(answers.iter().count(), ANSWERS_MAX);
        assert_eq!(answers.iter().next().unwrap().0, CommandId(1));
    }
    #[test]
    fn long_answers_take_the_place_of_many() {
        let mut answers = Answers::default();
        let long = |n: u128, bytes| {
            let (command, cycle, job) = ("x".repeat(bytes), None, None);
            let reason = verger_proto::Refusal::UnknownCycle;
            (CommandId(n), [Event::CommandRefused { command, cycle, job, reason }])
        };
        for n in 0..20 {
            let (id, events) = long(n, 1 << 20);
            answers.keep(id, &events);
        }
        assert_eq!(answers.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [17, 18, 19]);
        let (id, events) = long(20, 9 << 20);
        answers.keep(id, &events);
        assert_eq!(answers.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [20], "the newest in any case");
        for n in 21..40 {
            let (id, events) = long(n, 1 << 10);
            answers.keep(id, &events);
        }
        assert_eq!(answers.iter().count(), 19);
        let mut again = Answers::default();
        answers.iter().for_each(|(id, events)| again.keep(id, events));
        assert_eq!(again, answers, "what a snapshot holds is kept whole");
    }
}
