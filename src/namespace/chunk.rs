//! The bytes of one write while they are in memory.
//!
//! What a stream writes comes in large pieces, one after the other: these lie in memory that is used again,
//! because fresh pages cost nearly as much as copying into them. The rest is as large as it is.

use std::ops::Deref;

use crate::base::KIB;
use crate::fleet::disk::buffer::{Buffer, BufferPool};

/// Writes of this size and more.
const LARGE_BYTES: usize = 256 * KIB as usize;

/// Bytes that do not change any more once others see them.
#[derive(Debug)]
pub(super) enum Chunk {
    /// In memory of their own, which may grow.
    Own(Vec<u8>),
    /// In memory of the pool.
    Lent(Buffer),
}

impl Chunk {
    /// A copy, in the pool's memory if it is large and there is some; waits for nothing.
    pub(super) fn copy_of(bytes: &[u8], pool: &BufferPool) -> Chunk {
        let lent = if bytes.len() < LARGE_BYTES { None } else { pool.try_take(bytes.len()) };
        let Some(mut buffer) = lent else { return Chunk::Own(bytes.to_vec()) };
        buffer.copy_from_slice(bytes);
        Chunk::Lent(buffer)
    }

    /// Puts more behind it, up to `bytes_max` in all; false: it does not grow so far.
    pub(super) fn append(&mut self, more: &[u8], bytes_max: usize) -> bool {
        match self {
            Chunk::Own(bytes) if bytes.len() + more.len() <= bytes_max => {
                bytes.extend_from_slice(more);
                true
            }
            Chunk::Own(_) | Chunk::Lent(_) => false,
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Lent(buffer) => buffer,
        }
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Chunk {
        Chunk::Own(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::simulation::World;

    #[test]
    fn large_ones_lie_in_memory_of_the_pool_while_there_is_some() {
        let pool = BufferPool::new(2 * LARGE_BYTES as u64, World::new(1));
        let bytes: Vec<u8> = (0..LARGE_BYTES).map(|at| at as u8).collect();
        let small = Chunk::copy_of(&bytes[1..], &pool);
        let large: Vec<Chunk> = (0..3).map(|_| Chunk::copy_of(&bytes, &pool)).collect();
        assert!(matches!(small, Chunk::Own(_)));
        assert!(matches!(large[..], [Chunk::Lent(_), Chunk::Lent(_), Chunk::Own(_)]));
        assert!(large.iter().all(|chunk| chunk[..] == bytes[..]) && small[..] == bytes[1..]);
        assert_eq!(pool.taken_bytes(), 2 * LARGE_BYTES as u64);
        drop(large);
        assert_eq!(pool.taken_bytes(), 0);
    }

    #[test]
    fn only_what_has_memory_of_its_own_grows_and_so_far() {
        let mut chunk = Chunk::from(vec![1, 2]);
        assert!(chunk.append(&[3], 3));
        assert!(!chunk.append(&[4], 3));
        assert_eq!(chunk[..], [1, 2, 3]);
        let pool = BufferPool::new(2 * LARGE_BYTES as u64, World::new(1));
        let mut lent = Chunk::copy_of(&vec![7; LARGE_BYTES], &pool);
        assert!(!lent.append(&[8], 1 << 20));
        assert_eq!(lent.len(), LARGE_BYTES);
    }
}
