//! Room 1, `frontend`: the kernel's side. Only `fuse.rs` names fuser, only `errno.rs` names errno.

mod decode;
mod errno;
pub mod file_system;
mod fuse;
mod gate;
pub mod memory;
pub mod mounts;
mod namespace_fs;
pub mod session;

pub use file_system::{CopyEnd, FileSystem, FsResult, Handle, OpenMode, WriteMode};
pub use session::{Mount, MountError, MountOptions, abandon, unmount};
