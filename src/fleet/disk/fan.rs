//! A set of requests in flight together.

/// Placeholder.
#[derive(Debug)]
pub struct Fan;
