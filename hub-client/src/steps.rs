//! Named steps of the way of an alert, so that a test can stop the program at each of them as a crash would.

/// A step was reached at which a test wants the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped at step {0}")]
pub struct Stopped(pub &'static str);

/// Told of every step. Production uses [`NoSteps`].
pub trait Steps {
    /// `step` is about to be left behind: everything before it is done, nothing after it.
    fn reached(&mut self, step: &'static str) -> Result<(), Stopped>;
}

/// Goes on at every step.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSteps;

impl Steps for NoSteps {
    fn reached(&mut self, _step: &'static str) -> Result<(), Stopped> {
        Ok(())
    }
}
