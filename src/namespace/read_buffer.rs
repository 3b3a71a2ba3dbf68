//! Where a read puts what it found.

use std::ops::Range;

use super::cache::Shard;
use crate::fleet::disk::buffer::side_by_side;

/// Bytes of a read. What lies in one cached shard, or in two that lie side by side, is lent from there: the
/// copy into the kernel is the only one. Everything else is copied into memory of its own, which is kept for
/// the next read.
#[derive(Default)]
pub struct ReadBuffer {
    own: Vec<u8>,
    /// Stands for all bytes; `own` is empty then.
    lent: Option<Lent>,
}

struct Lent {
    shard: Shard,
    /// Lies behind it, side by side.
    next: Option<Shard>,
    /// Of both, counted from the first one's start.
    range: Range<usize>,
}

impl Lent {
    fn bytes(&self) -> &[u8] {
        let both = self.next.as_ref().and_then(|next| side_by_side(&self.shard, next));
        &both.unwrap_or(&self.shard)[self.range.clone()]
    }

    /// That part of a shard is the next one. False if that cannot be.
    fn extend(&mut self, shard: &Shard, range: &Range<usize>) -> bool {
        let goes_on = self.next.is_none()
            && range.start == 0
            && self.range.end == self.shard.len()
            && side_by_side(&self.shard, shard).is_some();
        if goes_on {
            self.next = Some(shard.clone());
            self.range.end += range.end;
        }
        goes_on
    }
}

impl ReadBuffer {
    /// What was read.
    pub fn bytes(&self) -> &[u8] {
        match &self.lent {
            Some(lent) => lent.bytes(),
            None => &self.own,
        }
    }

    /// Whether nothing was copied.
    #[cfg(test)]
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.is_some()
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

    /// Puts that part of a shard at the end: lent if it comes first, or goes on in what is lent.
    pub(super) fn append_shard(&mut self, shard: Shard, range: Range<usize>) {
        if self.lent.as_mut().is_some_and(|lent| lent.extend(&shard, &range)) {
            return;
        }
        if self.bytes().is_empty() {
            self.own.clear();
            self.lent = Some(Lent { shard, next: None, range });
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
            Some(Lent { range, .. }) => {
                range.end = range.end.min(range.start.saturating_add(length));
            }
            None => self.own.truncate(length),
        }
    }

    fn own(&mut self) -> &mut Vec<u8> {
        if let Some(lent) = self.lent.take() {
            self.own.extend_from_slice(lent.bytes());
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
    fn what_goes_on_in_the_next_shard_is_lent_if_that_lies_behind_it() {
        let mut parts = Buffer::zeroed(3 * 4096).split(4096);
        parts.iter_mut().enumerate().for_each(|(at, part)| part.fill(at as u8));
        let parts: Vec<Shard> = parts.into_iter().map(Arc::new).collect();
        let mut buffer = ReadBuffer::default();
        buffer.append_shard(parts[0].clone(), 4090..4096);
        buffer.append_shard(parts[1].clone(), 0..3);
        assert_eq!(buffer.bytes(), [0, 0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(buffer.bytes().as_ptr(), parts[0][4090..].as_ptr(), "nothing was copied");
        buffer.truncate(7);
        assert_eq!(buffer.bytes(), [0, 0, 0, 0, 0, 0, 1]);
        buffer.append_shard(parts[2].clone(), 0..1);
        assert_eq!(Vec::from(buffer), [0, 0, 0, 0, 0, 0, 1, 2]);
        for (first, second, range) in [
            (4090..4095, 1, 0..1),
            (4090..4096, 1, 1..2),
            (4090..4096, 2, 0..1),
            (4090..4096, 0, 0..1),
        ] {
            let mut buffer = ReadBuffer::default();
            let length = first.len() + range.len();
            buffer.append_shard(parts[0].clone(), first);
            buffer.append_shard(parts[second].clone(), range);
            assert!(buffer.lent.is_none() && buffer.bytes().len() == length);
            assert_eq!(buffer.bytes().last(), Some(&(second as u8)));
        }
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
