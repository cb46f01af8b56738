//! Named steps of the way of an alert, so that a test can end the program at each of them as a crash would.

/// Told of every step. Production uses [`NoSteps`].
pub trait Steps {
    /// `step` is about to be left behind: everything before it is done, nothing after it.
    fn reached(&mut self, step: &'static str);
}

/// Goes on at every step.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSteps;

impl Steps for NoSteps {
    fn reached(&mut self, _step: &'static str) {}
}
