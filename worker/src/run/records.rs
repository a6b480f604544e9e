//! Figures of Kopia's tasks, for the run history and the report.

use std::collections::BTreeMap;

use serde_json::Value;
use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::history::{DeleteUnreferencedPacksStats, Figures as TaskFigures, RunRecord, Task};
use verger_proto::report::TaskStats;

use crate::task::record::ScheduleFile;

/// `data` of each task's record, by Kopia's task name. Tasks that ran and found nothing to do have `null`.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    tasks: BTreeMap<&'static str, Value>,
    /// The first deletion of the cycle, whose record a second one goes into: its start and figures.
    pub(super) first_delete: Option<(Timestamp, DeleteUnreferencedPacksStats)>,
    /// Bytes of the packs that moved contents went into.
    pub(super) written_bytes: u64,
}

impl Figures {
    /// By task name.
    #[must_use]
    pub fn by_task(&self) -> &BTreeMap<&'static str, Value> {
        &self.tasks
    }

    /// Notes a successful run in the history and in the report. `None`: it ran and found nothing to do.
    pub fn success<F: TaskFigures>(
        &mut self,
        schedule: &mut ScheduleFile,
        task: Task,
        times: (Timestamp, Timestamp),
        figures: Option<&F>,
    ) {
        schedule.success(task, times.0, times.1, figures);
        self.note(task, figures);
    }

    /// As [`Figures::success`], in place of the record that began at the same time (R20).
    pub fn revise<F: TaskFigures>(
        &mut self,
        schedule: &mut ScheduleFile,
        task: Task,
        times: (Timestamp, Timestamp),
        figures: Option<&F>,
    ) {
        schedule.revise(task, RunRecord::success(times.0, times.1).with_figures(figures));
        self.note(task, figures);
    }

    fn note<F: TaskFigures>(&mut self, task: Task, figures: Option<&F>) {
        let data = figures.and_then(|figures| serde_json::to_value(figures).ok()).unwrap_or(Value::Null);
        self.tasks.insert(task.as_str(), data);
    }

    /// Those of these tasks, for a job's report.
    #[must_use]
    pub fn of(&self, tasks: &[Task]) -> Vec<TaskStats> {
        let one = |task: &Task| {
            let data = self.tasks.get(task.as_str())?;
            Some(TaskStats { task: task.as_str().to_owned(), data: data.to_string() })
        };
        tasks.iter().filter_map(one).collect()
    }
}
