//! Background work as steps. A task owns no thread: `pool` runs it in a thread of its own, and the
//! simulator steps it whenever its seed says so.

use super::clock::Ticks;
use super::sync::Arc;
use super::wait::Event;

/// What a task wants after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// There is more to do now.
    Again,
    /// Nothing to do until the task's event is notified, or the moment has come.
    Idle(Option<Ticks>),
    /// Never call it again.
    Done,
}

/// A unit of background work (committer, flusher, checkpointer, compactor, reclaim, ...).
///
/// A step is short: at most one object's worth of I/O. It may wait through the `Wait` it was given,
/// and in simulation other tasks then run inside that wait; it must hold no lock while it waits.
pub trait Task: Send {
    /// For threads' names, logs and status.
    fn name(&self) -> &'static str;
    /// Notified by whoever makes work for this task.
    fn event(&self) -> Arc<Event>;
    /// Does the next small piece.
    fn step(&mut self) -> Pace;
}
