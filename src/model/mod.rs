//! Room `model`: the executable specification, plain maps that say what the engine must do.
//!
//! It shares no code with what it judges (only [`crate::base`]'s ids and times), and is as small as it
//! can be. `tests/engine` drives it beside the engine with the same operations and compares; it was
//! itself compared with Linux on tmpfs (`tests/engine/conformance.rs`).
//!
//! * [`content`]: bytes of a file.
//! * [`namespace`]: the POSIX tree as if nothing ever failed: [`Tree`].
//! * [`pool`]: what is applied, what is durable, what may be lost: [`Pool`] [I1, I2].
//! * [`crash`]: whether a tree found after a crash is one of those allowed [I1, I2, I3].
//! * [`dump`]: the tree found, as two different walks see it.
//!
//! A rule changes here first, and in the engine after.

pub mod content;
pub mod crash;
pub mod dump;
pub mod namespace;
pub mod pool;
pub mod words;

pub use content::Content;
pub use dump::{Dump, Subject};
pub use namespace::{Step, Tree};
pub use pool::{Floor, Pool};
pub use words::{
    Body, Caller, Kind, Name, New, Outcome, Refusal, Rename, Reserve, SetAttr, XattrMode,
};
