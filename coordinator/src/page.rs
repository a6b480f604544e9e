//! The page that figures are put on, for Prometheus: a coordinator's, and a worker's.

mod stores;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};
use verger_proto::work_queue::meters::{Fate, Meters};

/// Names and values of labels: never a blob, a content, a path or a person.
pub type Labels = Vec<(&'static str, String)>;
pub(crate) type Count = Family<Labels, Counter<u64, AtomicU64>>;

/// Figures under one prefix.
pub struct Page(Registry);

/// What the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Default for Page {
    fn default() -> Self {
        Self(Registry::with_prefix("verger"))
    }
}

impl Page {
    fn rows<M: Default + 'static, F>(
        &mut self,
        name: &str,
        help: &str,
        figures: impl IntoIterator<Item = (Labels, F)>,
        put: impl Fn(&M, F),
    ) where
        Family<Labels, M>: Metric,
    {
        let (family, mut any) = (Family::<Labels, M>::default(), false);
        for (labels, figure) in figures {
            put(&family.get_or_create(&labels), figure);
            any = true;
        }
        if any {
            self.0.register(name, help, family);
        }
    }

    /// What is now. Nothing is written where there is no figure.
    pub fn levels(&mut self, name: &str, help: &str, figures: impl IntoIterator<Item = (Labels, f64)>) {
        self.rows(name, help, figures, |gauge: &Gauge<f64, AtomicU64>, figure| {
            gauge.set(figure);
        });
    }

    /// One figure.
    pub fn level(&mut self, name: &str, help: &str, figure: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(figure);
        self.0.register(name, help, gauge);
    }

    /// What only grows; `_total` comes after the name.
    pub fn counts(&mut self, name: &str, help: &str, figures: impl IntoIterator<Item = (Labels, u64)>) {
        self.rows(name, help, figures, |counter: &Counter<u64, AtomicU64>, figure| {
            counter.inc_by(figure);
        });
    }

    /// As [`Page::counts`], one figure.
    pub fn count(&mut self, name: &str, help: &str, figure: u64) {
        let counter = Counter::<u64, AtomicU64>::default();
        counter.inc_by(figure);
        self.0.register(name, help, counter);
    }

    /// As [`Page::counts`], of what comes in parts: seconds, dollars.
    pub fn amounts(&mut self, name: &str, help: &str, figures: impl IntoIterator<Item = (Labels, f64)>) {
        self.rows(name, help, figures, |counter: &Counter<f64, AtomicU64>, figure| {
            counter.inc_by(figure);
        });
    }

    /// What a process sends to the work queue or takes from it.
    pub fn work_queue(&mut self, meters: &Meters) {
        let fates = Fate::ALL.iter().map(|(fate, label)| (vec![("fate", (*label).to_owned())], meters.get(*fate)));
        self.counts("work_queue_offers", "Offers of the work queue, by what became of them", fates);
        let rejected = meters.rejected();
        let rejected = rejected.iter().map(|(reason, count)| (vec![("reason", (*reason).to_owned())], *count));
        self.counts("work_queue_rejected", "Messages that were not believed", rejected);
    }

    /// What is counted elsewhere.
    pub(crate) fn kept(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register(name, help, metric);
    }

    /// All of it.
    ///
    /// # Errors
    /// Whatever a figure that is counted elsewhere says.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}
