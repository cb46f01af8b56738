//! Spaces out attempts that fail.

use std::time::Duration;

/// A `Backoff` doubles the wait with each failure, up to a limit.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// Creates a backoff that waits `first` after the first failure, and never longer than `limit`.
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, failures: 0 }
    }

    /// Returns the wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        let wait = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.limit);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Returns the number of failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts again after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Shortens a wait at random by up to a quarter, so that nodes that start together spread out.
pub fn spread(wait: Duration) -> Duration {
    wait - wait.mul_f64(rand::random_range(0.0..0.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let mut waits = || [(); 4].map(|()| backoff.wait().as_secs());
        assert_eq!(waits(), [1, 2, 4, 5]);
        backoff.failures = u32::MAX;
        assert_eq!((backoff.wait(), backoff.failures()), (Duration::from_secs(5), u32::MAX));
        backoff.reset();
        assert_eq!(backoff.wait(), Duration::from_secs(1));
    }

    #[test]
    fn a_spread_wait_is_shorter_by_a_quarter_at_most() {
        let wait = Duration::from_secs(60);
        for _ in 0..100 {
            assert!((Duration::from_secs(45)..=wait).contains(&spread(wait)));
        }
    }
}
