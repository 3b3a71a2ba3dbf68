//! Aligned buffers from one bounded pool.

/// Placeholder until the buffer pool lands.
#[derive(Debug)]
pub struct Buffer;
/// Placeholder.
#[derive(Debug)]
pub struct Slice;
/// Placeholder.
#[derive(Debug)]
pub struct BufferPool;
