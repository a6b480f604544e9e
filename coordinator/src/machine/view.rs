//! What a worker in a process of its own sees of the state: one repository, and its open cycle.

use verger_proto::RepositoryId;

use super::state::{Past, State};

impl State {
    /// The state as if there were only this repository. Reports of cycles that ended stay out: they are long, and nobody who works on it
    /// asks for them.
    #[must_use]
    pub fn view_of(&self, repository: &RepositoryId) -> State {
        let mut view =
            State { next_cycle: self.next_cycle, next_job: self.next_job, now: self.now, ..State::default() };
        let Some(entry) = self.repositories.get(repository) else { return view };
        let mut entry = entry.clone();
        entry.past = entry.past.into_iter().map(|past| Past { report: None, ..past }).collect();
        view.repositories.insert(repository.clone(), entry);
        if let Some(cycle) = self.open_cycle(repository) {
            view.cycles.insert(cycle.id, cycle.clone());
        }
        view
    }
}
