//! This module names the steps of an alert from the node to the collector's output, so that a test can end
//! the program at each of them as a crash would.

/// A `Steps` is called at every step. Production uses [`NoSteps`].
pub trait Steps {
    /// Is called when everything before `step` is done and nothing after it has begun.
    fn reached(&mut self, step: &'static str);
}

/// `NoSteps` continues at every step.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSteps;

impl Steps for NoSteps {
    fn reached(&mut self, _step: &'static str) {}
}
