//! Bytes of a file: a map of pages, those that hold only zeros left out. Clones share pages, so that
//! the model can keep every version a file ever had.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::base::sync::Arc;

const PAGE: u64 = 4096;

type Page = [u8; PAGE as usize];

/// Content of a file, zeros everywhere except where something else was written.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Content(Arc<BTreeMap<u64, Arc<Page>>>);

/// The pages that a byte range touches: page number, range inside the page, offset in the range.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, Range<usize>, usize)> {
    let end = offset + length;
    (offset / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let from = offset.max(page * PAGE);
        let to = end.min((page + 1) * PAGE);
        ((page), (from % PAGE) as usize..(to - page * PAGE) as usize, (from - offset) as usize)
    })
}

impl Content {
    /// The bytes at `offset`; the caller has clipped the range to the file's size.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (page, inside, at) in pieces(offset, length as u64) {
            if let Some(page) = self.0.get(&page) {
                bytes[at..at + inside.len()].copy_from_slice(&page[inside]);
            }
        }
        bytes
    }

    /// Replaces the bytes at `offset`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let pages = Arc::make_mut(&mut self.0);
        for (number, inside, at) in pieces(offset, bytes.len() as u64) {
            let mut page = pages.get(&number).map_or([0; PAGE as usize], |page| **page);
            page[inside.clone()].copy_from_slice(&bytes[at..at + inside.len()]);
            if page.iter().all(|&byte| byte == 0) {
                pages.remove(&number);
            } else {
                pages.insert(number, Arc::new(page));
            }
        }
    }

    /// Makes zeros of `range`; its end may be `u64::MAX`.
    pub fn zero(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let touched: Vec<u64> = self
            .0
            .range(range.start / PAGE..=range.end.saturating_sub(1) / PAGE)
            .map(|(&number, _)| number)
            .collect();
        for number in touched {
            let from = range.start.max(number * PAGE);
            let to = range.end.min((number + 1) * PAGE);
            if from < to {
                self.write(from, &vec![0; (to - from) as usize]);
            }
        }
    }

    /// The first byte at or after `offset` that is not zero.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        self.0.range(offset / PAGE..).find_map(|(&number, page)| {
            let from = offset.saturating_sub(number * PAGE) as usize;
            let at = page.iter().skip(from).position(|&byte| byte != 0)?;
            Some(number * PAGE + (from + at) as u64)
        })
    }

    /// The first byte in which the two differ, with both values.
    pub fn first_difference(&self, other: &Content) -> Option<(u64, u8, u8)> {
        let zeros = Arc::new([0; PAGE as usize]);
        let numbers = self.0.keys().chain(other.0.keys());
        let number = *numbers.filter(|number| self.0.get(number) != other.0.get(number)).min()?;
        let mine = self.0.get(&number).unwrap_or(&zeros);
        let theirs = other.0.get(&number).unwrap_or(&zeros);
        let at = mine.iter().zip(theirs.iter()).position(|(a, b)| a != b)?;
        Some((number * PAGE + at as u64, mine[at], theirs[at]))
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_the_same_as_nothing() {
        let mut content = Content::default();
        content.write(5000, &[7; 9000]);
        assert_eq!(content.next_data(0), Some(5000));
        assert_eq!(content.read(4999, 3), [0, 7, 7]);
        content.zero(5001..u64::MAX);
        assert_eq!(content.read(5000, 2), [7, 0]);
        assert_eq!(content.next_data(5001), None);
        content.zero(0..5001);
        assert_eq!(content, Content::default());
    }

    #[test]
    fn the_first_difference_is_found() {
        let (mut a, mut b) = (Content::default(), Content::default());
        a.write(9000, &[1]);
        assert_eq!(b.first_difference(&a), Some((9000, 0, 1)));
        b.write(9000, &[1]);
        assert_eq!(a.first_difference(&b), None);
    }
}
