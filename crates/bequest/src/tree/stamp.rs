//! Points in time in one word, and the question whether one is far off.
//!
//! An [`Instant`] is two words. A node keeps its deadline as nanoseconds from the first instant that this process
//! measured: exact, and good for 292 years either way. What lies beyond is never.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A point in time, in nanoseconds from the process's own origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub(crate) struct Stamp(i64);

struct Origin {
    instant: Instant,
    /// What the cheap clock's own counter stood at, at the latest, when `instant` was measured.
    raw: i64,
}

static ORIGIN: OnceLock<Origin> = OnceLock::new();

#[inline]
fn origin() -> &'static Origin {
    ORIGIN.get_or_init(|| {
        let raw = coarse::precise();
        Origin {
            instant: Instant::now(),
            raw,
        }
    })
}

impl Stamp {
    /// The point that never comes.
    pub(crate) const NEVER: Stamp = Stamp(i64::MAX);
    /// Before everything that an `i64` of nanoseconds can tell apart.
    const LONG_AGO: Stamp = Stamp(i64::MIN);

    #[inline]
    pub(crate) fn of(at: Instant) -> Stamp {
        let origin = origin().instant;
        match at.checked_duration_since(origin) {
            Some(ahead) => nanos(ahead).map_or(Stamp::NEVER, Stamp),
            None => nanos(origin.duration_since(at)).map_or(Stamp::LONG_AGO, |back| Stamp(-back)),
        }
    }

    #[inline]
    pub(crate) fn now() -> Stamp {
        Stamp::of(Instant::now())
    }

    /// `span` from now on the system's clock; never, if that lies beyond what a stamp can hold.
    #[inline]
    pub(crate) fn after(span: Duration) -> Stamp {
        match nanos(span) {
            Some(ahead) => Stamp(Stamp::now().0.saturating_add(ahead)),
            None => Stamp::NEVER,
        }
    }

    /// The point as an `Instant`; `None` for never.
    pub(crate) fn instant(self) -> Option<Instant> {
        if self == Stamp::NEVER {
            return None;
        }
        let origin = origin().instant;
        let span = Duration::from_nanos(self.0.unsigned_abs());
        Some(if self.0 >= 0 {
            origin + span
        } else {
            // Where an `Instant` cannot go that far back, its own beginning is as much in the past.
            origin.checked_sub(span).unwrap_or(origin)
        })
    }

    pub(crate) const fn nanos(self) -> i64 {
        self.0
    }

    /// Whether this point is certain to lie ahead on the system's clock, as told by the cheap clock.
    ///
    /// `false` says nothing: the clock proper is to be read then.
    #[inline]
    pub(crate) fn is_far_off(self) -> bool {
        // The cheap clock may lag behind by a tick, or by as long as the system's own ticks were late.
        const MARGIN: i64 = 1_000_000_000;
        match coarse::now() {
            Some(raw) => raw - origin().raw < self.0.saturating_sub(MARGIN),
            None => false,
        }
    }

    /// Whether this point has come on the system's clock.
    #[inline]
    pub(crate) fn has_come(self) -> bool {
        !self.is_far_off() && self <= Stamp::now()
    }
}

/// The present instant by the cheap clock: as long ago as its last tick, which is some milliseconds.
pub(crate) fn roughly_now() -> Instant {
    let origin = origin();
    match coarse::now() {
        // Nought if the process is younger than a tick.
        Some(raw) => origin.instant + Duration::from_nanos(u64::try_from(raw - origin.raw).unwrap_or(0)),
        None => Instant::now(),
    }
}

/// Whether `at` has come on the system's clock.
#[inline]
pub(crate) fn has_come(at: Instant) -> bool {
    Stamp::of(at).has_come()
}

#[inline]
fn nanos(span: Duration) -> Option<i64> {
    let whole = i64::try_from(span.as_secs()).ok()?.checked_mul(1_000_000_000)?;
    whole
        .checked_add(i64::from(span.subsec_nanos()))
        .filter(|nanos| *nanos != i64::MAX)
}

/// The cheap clock: the value of the monotonic clock at the last tick of the system.
///
/// Reading it costs 5 ns, the clock proper 24 ns, measured on the machine of `docs/figures.md`. It is asked at each
/// cancel of a context with a deadline and at each first look, where "has it passed?" is nearly always answered by
/// "not by far".
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
#[allow(unsafe_code)]
mod coarse {
    #[repr(C)]
    struct TimeSpec {
        seconds: i64,
        nanoseconds: i64,
    }

    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut TimeSpec) -> i32;
    }

    const CLOCK_MONOTONIC: i32 = 1;
    const CLOCK_MONOTONIC_COARSE: i32 = 6;

    #[inline]
    pub(super) fn now() -> Option<i64> {
        read(CLOCK_MONOTONIC_COARSE)
    }

    /// The clock proper, on the same scale.
    pub(super) fn precise() -> i64 {
        read(CLOCK_MONOTONIC).unwrap_or(0)
    }

    #[inline]
    fn read(clock: i32) -> Option<i64> {
        let mut time = TimeSpec {
            seconds: 0,
            nanoseconds: 0,
        };
        // SAFETY: `time` is a valid `timespec` of 64-bit Linux, whose two members are 64 bits wide, and is written only
        // during the call. Both clocks exist since Linux 2.6.32.
        let code = unsafe { clock_gettime(clock, &mut time) };
        (code == 0).then(|| time.seconds * 1_000_000_000 + time.nanoseconds)
    }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", not(miri))))]
mod coarse {
    pub(super) fn now() -> Option<i64> {
        None
    }

    pub(super) fn precise() -> i64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_exact_both_ways() {
        let now = Instant::now();
        for span in [0, 1, 999, 1_000_000_007, 90 * 24 * 3600 * 1_000_000_000] {
            let span = Duration::from_nanos(span);
            assert_eq!(Stamp::of(now + span).instant(), Some(now + span));
            if let Some(back) = now.checked_sub(span) {
                assert_eq!(Stamp::of(back).instant(), Some(back));
            }
        }
    }

    #[test]
    fn what_is_beyond_three_centuries_never_comes() {
        let far = Instant::now() + Duration::from_secs(300 * 365 * 24 * 3600);
        assert_eq!(Stamp::of(far), Stamp::NEVER);
        assert!(Stamp::NEVER.instant().is_none() && !Stamp::NEVER.has_come());
    }

    #[test]
    fn the_cheap_clock_is_no_more_than_a_little_behind() {
        let before = Instant::now();
        while roughly_now() < before {
            std::thread::yield_now();
        }
        assert!(roughly_now() <= Instant::now() + Duration::from_secs(1));
    }

    #[test]
    fn the_cheap_clock_never_hides_a_point_that_has_come() {
        for _ in 0..1000 {
            let now = Stamp::now();
            assert!(now.has_come() && !now.is_far_off());
            assert!(!Stamp::of(Instant::now() + Duration::from_secs(3600)).has_come());
        }
    }
}
