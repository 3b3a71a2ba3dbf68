//! The kernel's side on real mounts: what a program sees through FUSE. Needs /dev/fuse; as root it
//! mounts by itself, as anybody else through fusermount3. Without either, tests say so and pass.

#[path = "mount/answers.rs"]
mod answers;
#[path = "mount/caching.rs"]
mod caching;
#[path = "mount/check.rs"]
mod check;
#[path = "mount/command.rs"]
mod command;
#[path = "mount/harness.rs"]
mod harness;
#[path = "mount/names.rs"]
mod names;
#[path = "mount/permissions.rs"]
mod permissions;
#[path = "mount/semantics.rs"]
mod semantics;
#[path = "mount/waiting.rs"]
mod waiting;
