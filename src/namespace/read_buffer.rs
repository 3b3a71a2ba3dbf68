//! Where a read puts what it found.

use std::ops::Range;

use super::cache::Shard;

/// Bytes of a read. What lies in one cached shard is lent from there: the copy into the kernel is the
/// only one. Everything else is copied into memory of its own, which is kept for the next read.
#[derive(Default)]
pub struct ReadBuffer {
    own: Vec<u8>,
    /// Stands for all bytes; `own` is empty then.
    lent: Option<(Shard, Range<usize>)>,
}

impl ReadBuffer {
    /// What was read.
    pub fn bytes(&self) -> &[u8] {
        match &self.lent {
            Some((shard, range)) => &shard[range.clone()],
            None => &self.own,
        }
    }

    /// Puts a copy of `bytes` at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        self.own().extend_from_slice(bytes);
    }

    /// Puts `count` zeros at the end, to be written over.
    pub fn append_zeros(&mut self, count: usize) -> &mut [u8] {
        let own = self.own();
        let base = own.len();
        own.resize(base + count, 0);
        &mut own[base..]
    }

    /// Puts that part of a shard at the end: lent if it comes first.
    pub(super) fn append_shard(&mut self, shard: Shard, range: Range<usize>) {
        if self.bytes().is_empty() {
            self.own.clear();
            self.lent = Some((shard, range));
        } else {
            self.append(&shard[range]);
        }
    }

    /// Gives back what was lent, and forgets the rest. More than `keep` bytes of memory are freed.
    pub fn clear(&mut self, keep: usize) {
        self.truncate(0);
        if self.own.capacity() > keep {
            self.own = Vec::new();
        }
    }

    /// Forgets what is beyond `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        match &mut self.lent {
            Some(_) if length == 0 => self.lent = None,
            Some((_, range)) => range.end = range.end.min(range.start.saturating_add(length)),
            None => self.own.truncate(length),
        }
    }

    fn own(&mut self) -> &mut Vec<u8> {
        if let Some((shard, range)) = self.lent.take() {
            self.own.extend_from_slice(&shard[range]);
        }
        &mut self.own
    }
}

impl From<Vec<u8>> for ReadBuffer {
    /// Goes on behind `bytes`.
    fn from(bytes: Vec<u8>) -> ReadBuffer {
        ReadBuffer { own: bytes, lent: None }
    }
}

impl From<ReadBuffer> for Vec<u8> {
    fn from(mut buffer: ReadBuffer) -> Vec<u8> {
        std::mem::take(buffer.own())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::Arc;
    use crate::fleet::disk::Buffer;

    fn shard() -> Shard {
        let mut buffer = Buffer::zeroed(8192);
        buffer.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        Arc::new(buffer)
    }

    #[test]
    fn one_shard_is_lent_and_more_is_copied() {
        let shard = shard();
        let mut buffer = ReadBuffer::default();
        buffer.append_shard(shard.clone(), 10..13);
        assert_eq!(buffer.bytes(), [10, 11, 12]);
        assert_eq!(buffer.bytes().as_ptr(), shard[10..].as_ptr(), "nothing was copied");
        assert_eq!(Arc::strong_count(&shard), 2);
        buffer.append_shard(shard.clone(), 20..22);
        assert_eq!(Arc::strong_count(&shard), 1, "nothing is lent any more");
        buffer.append(&[7]);
        buffer.append_zeros(2)[1] = 5;
        assert_eq!(buffer.bytes(), [10, 11, 12, 20, 21, 7, 0, 5]);
        buffer.truncate(4);
        assert_eq!(Vec::from(buffer), [10, 11, 12, 20]);
    }

    #[test]
    fn what_was_lent_is_given_back() {
        let shard = shard();
        let mut buffer = ReadBuffer::default();
        buffer.append_shard(shard.clone(), 10..13);
        buffer.truncate(2);
        assert_eq!(buffer.bytes(), [10, 11]);
        buffer.clear(0);
        assert!(buffer.bytes().is_empty());
        assert_eq!(Arc::strong_count(&shard), 1);
        buffer.append(&[1]);
        buffer.append_shard(shard.clone(), 10..11);
        buffer.clear(1 << 20);
        assert!(buffer.own.capacity() >= 2 && buffer.bytes().is_empty());
        let mut behind = ReadBuffer::from(vec![9]);
        behind.append_shard(shard, 10..11);
        assert_eq!(Vec::from(behind), [9, 10]);
    }
}
