//! The coarse clock of the adapters: a monotonic time that costs next to nothing.
//!
//! Knows how the operating system counts, not what the time is used for.
//! Precise time is the business of each runtime.
#![expect(clippy::disallowed_methods, reason = "the adapters are where the real clock is read")]

use std::time::Instant;

/// The time at the last tick of the kernel, never ahead of `Instant::now`.
#[cfg(target_os = "linux")]
pub(super) fn coarse_now() -> Instant {
    use std::sync::OnceLock;

    static BOOT: OnceLock<Instant> = OnceLock::new();

    *BOOT.get_or_init(boot) + read(rustix::time::ClockId::MonotonicCoarse)
}

/// The time: here the precise clock is the only one.
#[cfg(not(target_os = "linux"))]
pub(super) fn coarse_now() -> Instant {
    Instant::now()
}

/// Zero of the kernel's monotonic clock as an `Instant`, so that a reading
/// needs one addition.
#[cfg(target_os = "linux")]
fn boot() -> Instant {
    let monotonic = || read(rustix::time::ClockId::Monotonic);

    // The kernel's time is read last: it is then at least the instant's, and
    // the zero is early by the gap, never late. A preempted attempt has a long
    // gap; the shortest of a few is some ten nanoseconds.
    let (_, now, elapsed) = (0..8)
        .map(|_| {
            let before = monotonic();
            let now = Instant::now();
            let elapsed = monotonic();
            (elapsed.saturating_sub(before), now, elapsed)
        })
        .min()
        .expect("eight attempts");
    now - elapsed
}

#[cfg(target_os = "linux")]
fn read(clock: rustix::time::ClockId) -> std::time::Duration {
    let time = rustix::time::clock_gettime(clock);
    // Since boot: neither part is negative, and the second is under a billion.
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn coarse_time_is_never_ahead_of_the_precise_one() {
        for _ in 0..100_000 {
            assert!(coarse_now() <= Instant::now());
        }
    }

    #[test]
    fn coarse_time_never_goes_back() {
        let mut last = coarse_now();
        for _ in 0..100_000 {
            let now = coarse_now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn coarse_time_lags_by_a_tick_at_most() {
        // A busy machine may delay one tick, but not every one.
        let lag = (0..1_000)
            .map(|_| {
                let now = Instant::now();
                now.saturating_duration_since(coarse_now())
            })
            .min();
        assert!(lag < Some(Duration::from_millis(20)), "{lag:?}");
    }
}
