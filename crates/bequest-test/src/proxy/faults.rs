//! What may happen to bytes.

use std::num::NonZeroUsize;
use std::time::Duration;

/// What happens to the bytes of one direction. The default: nothing, they are passed on.
///
/// ```
/// use bequest_test::proxy::Faults;
/// use std::time::Duration;
///
/// let far_away = Faults::none().latency(Duration::from_millis(40)).jitter(Duration::from_millis(10));
/// assert_ne!(far_away, Faults::none());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) slice: Option<(NonZeroUsize, Duration)>,
    pub(super) cut_after: Option<u64>,
    pub(super) black_hole: bool,
}

impl Faults {
    /// None.
    pub fn none() -> Faults {
        Faults::default()
    }

    /// Each byte arrives this much later. It takes nothing from the throughput.
    #[must_use]
    pub fn latency(mut self, delay: Duration) -> Faults {
        self.latency = delay;
        self
    }

    /// Each piece is delayed by up to this much more, evenly distributed, and never overtakes another.
    #[must_use]
    pub fn jitter(mut self, most: Duration) -> Faults {
        self.jitter = most;
        self
    }

    /// Bytes arrive in pieces of at most `size` (at least 1), with a pause of `gap` between them.
    #[must_use]
    pub fn slice(mut self, size: usize, gap: Duration) -> Faults {
        let size = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
        self.slice = Some((size, gap));
        self
    }

    /// Of each connection the first `bytes` of this direction arrive, counted from its beginning, and then it is
    /// closed, both ways. If more have arrived already, it is closed at the next one.
    #[must_use]
    pub fn cut_after(mut self, bytes: u64) -> Faults {
        self.cut_after = Some(bytes);
        self
    }

    /// Nothing arrives, not even the end of a connection, and nobody is told: what a cable pulled out looks like.
    /// Connections are still accepted.
    #[must_use]
    pub fn black_hole(mut self) -> Faults {
        self.black_hole = true;
        self
    }
}
