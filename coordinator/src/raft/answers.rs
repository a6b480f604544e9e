//! What was answered to the last commands, by their numbers: a command that is asked again is answered again and not applied again.
//! Part of the replicated state, so every replica forgets the same at the same entry.

use std::collections::{BTreeMap, VecDeque};

use verger_kopia::mutant::{self, Mutant};
use verger_proto::{CommandId, Event};

/// So many answers are kept. Whoever asks again does so within seconds.
pub(crate) const ANSWERS_MAX: usize = 8192;

/// The last answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Answers {
    by_id: BTreeMap<CommandId, Vec<Event>>,
    order: VecDeque<CommandId>,
}

impl Answers {
    pub(crate) fn get(&self, id: CommandId) -> Option<&Vec<Event>> {
        self.by_id.get(&id).filter(|_| !mutant::on(Mutant::P5AskedAgainIsNew))
    }

    /// Keeps an answer. A command that changed nothing has none, and may be applied again.
    pub(crate) fn keep(&mut self, id: CommandId, events: &[Event]) {
        if events.is_empty() || self.by_id.insert(id, events.to_vec()).is_some() {
            return;
        }
        self.order.push_back(id);
        while self.order.len() > ANSWERS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }

    /// From the oldest to the newest.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CommandId, &Vec<Event>)> {
        self.order.iter().filter_map(|id| self.by_id.get(id).map(|events| (*id, events)))
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
}
