//! Room 2, `namespace`: names and metadata. POSIX operations over the index and the object store.

pub mod error;
pub mod index;
pub mod types;

pub use error::NamespaceError;
pub use types::*;
