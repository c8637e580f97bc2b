//! Spans, and numbers as people read them.

use std::time::Duration;

use serde_json::{Value, json};

/// Spans that were measured.
#[derive(Debug, Default)]
pub(super) struct Spans(Vec<Duration>);

impl Spans {
    pub(super) fn add(&mut self, span: Duration) {
        self.0.push(span);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// From the shortest to the longest.
    pub(super) fn sorted(&self) -> Vec<Duration> {
        let mut spans = self.0.clone();
        spans.sort();
        spans
    }

    /// The span that this share of the spans do not exceed; nothing of nothing.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let spans = self.sorted();
        let rank = (share * spans.len() as f64).ceil() as usize;
        spans
            .get(rank.clamp(1, spans.len().max(1)) - 1)
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn figures(&self) -> Value {
        let millis = |share| self.quantile(share).as_secs_f64() * 1e3;
        json!({ "count": self.0.len(), "p50_ms": millis(0.5), "p99_ms": millis(0.99), "max_ms": millis(1.0) })
    }
}

impl Extend<Duration> for Spans {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, spans: I) {
        self.0.extend(spans);
    }
}

/// As one says it: three digits that mean something.
pub(super) fn told(span: Duration) -> String {
    let millis = span.as_secs_f64() * 1e3;
    match millis {
        _ if millis < 10.0 => format!("{millis:.2} ms"),
        _ if millis < 1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1e3),
    }
}
