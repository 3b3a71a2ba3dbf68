//! Room 1, `frontend`: the kernel's side. Only `fuse.rs` names fuser, only `errno.rs` names errno.

pub mod file_system;
mod namespace_fs;

pub use file_system::{CopyEnd, FileSystem, FsResult, Handle, OpenMode, WriteMode};
