//! The page that figures are put on.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

/// Names and values of labels: never a blob, a content, a path or a person.
pub(super) type Labels = Vec<(&'static str, String)>;
pub(super) type Count = Family<Labels, Counter<u64, AtomicU64>>;
type Level = Family<Labels, Gauge<f64, AtomicU64>>;

/// Figures under one prefix.
pub(super) struct Page(Registry);

impl Default for Page {
    fn default() -> Self {
        Self(Registry::with_prefix("verger"))
    }
}

impl Page {
    /// What is now. Nothing is written where there is no figure.
    pub(super) fn levels(&mut self, name: &str, help: &str, figures: impl IntoIterator<Item = (Labels, f64)>) {
        let (family, mut any) = (Level::default(), false);
        for (labels, figure) in figures {
            family.get_or_create(&labels).set(figure);
            any = true;
        }
        if any {
            self.0.register(name, help, family);
        }
    }

    /// One figure.
    pub(super) fn level(&mut self, name: &str, help: &str, figure: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(figure);
        self.0.register(name, help, gauge);
    }

    /// What only grows; `_total` comes after the name.
    pub(super) fn counts(&mut self, name: &str, help: &str, figures: impl IntoIterator<Item = (Labels, u64)>) {
        let (family, mut any) = (Count::default(), false);
        for (labels, figure) in figures {
            family.get_or_create(&labels).inc_by(figure);
            any = true;
        }
        if any {
            self.0.register(name, help, family);
        }
    }

    /// As [`Page::counts`], one figure.
    pub(super) fn count(&mut self, name: &str, help: &str, figure: u64) {
        let counter = Counter::<u64, AtomicU64>::default();
        counter.inc_by(figure);
        self.0.register(name, help, counter);
    }

    /// What is counted elsewhere.
    pub(super) fn kept(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register(name, help, metric);
    }

    /// All of it.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}
