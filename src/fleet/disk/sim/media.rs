//! What is on a simulated disk, what is only in its cache, and what a crash makes of it.
//!
//! A write is *pending* from the moment the drive has it until it is certainly durable. A durable
//! write, or a flush, moves pages from pending to durable; a durable page makes older pending
//! versions of it void, because a drive does not destage an old version over a new one.

use std::collections::VecDeque;

use crate::base::Random;

use super::image::{Image, PAGE, Page};
use crate::base::sync::Arc;

/// Writes tear at any of these [R6].
const SECTOR: usize = 512;
/// Sectors of a page.
const SECTORS: usize = PAGE / SECTOR;

#[derive(Clone)]
struct Pending {
    sequence: u64,
    /// Number of its first page.
    first: u64,
    /// Its pages; None once durable, or made void by a newer durable version.
    pages: Vec<Option<Page>>,
    /// Order in which it ended; None while the drive has not answered.
    ended: Option<u64>,
    /// It ended with an error: no flush makes it certain, only what is written over it.
    failed: bool,
}

/// See the head of this file.
pub(super) struct Media {
    live: Image,
    durable: Image,
    pending: VecDeque<Arc<Pending>>,
    sequence: u64,
    endings: u64,
}

impl Media {
    pub fn new(image: Image) -> Media {
        Media {
            live: image.clone(),
            durable: image,
            pending: VecDeque::new(),
            sequence: 0,
            endings: 0,
        }
    }

    pub fn live(&self) -> &Image {
        &self.live
    }

    /// The drive received a write: from now on any part of it may survive a crash.
    pub fn begin_write(&mut self, offset: u64, data: &[u8]) -> u64 {
        self.sequence += 1;
        let pages = data
            .chunks_exact(PAGE)
            .map(|page| Some(Page::new(page.try_into().expect("chunks are pages"))))
            .collect();
        let first = offset / PAGE as u64;
        let pending = Pending { sequence: self.sequence, first, pages, ended: None, failed: false };
        self.pending.push_back(Arc::new(pending));
        self.sequence
    }

    /// The write never reached the medium and never will.
    pub fn cancel_write(&mut self, sequence: u64) {
        self.pending.retain(|pending| pending.sequence != sequence);
    }

    /// The write failed: parts of it may survive a crash, reads see none of it.
    pub fn abandon_write(&mut self, sequence: u64) {
        let index = self.find(sequence).expect("a write that fails was begun");
        self.endings += 1;
        let pending = Arc::make_mut(&mut self.pending[index]);
        pending.ended = Some(self.endings);
        pending.failed = true;
    }

    /// The write is complete: reads see it, and if `durable` it survives.
    pub fn end_write(&mut self, sequence: u64, durable: bool) {
        let index = self.find(sequence).expect("a write that completes was begun");
        self.endings += 1;
        let pending = Arc::make_mut(&mut self.pending[index]);
        pending.ended = Some(self.endings);
        let (first, pages) = (pending.first, pending.pages.clone());
        for (page, number) in pages.iter().zip(first..) {
            if let Some(page) = page {
                self.live.set_page(number, page.clone());
            }
        }
        if durable {
            self.make_durable(index);
        }
        self.drop_void();
    }

    /// All writes that end from now on have a number of at least this.
    pub fn next_ending(&self) -> u64 {
        self.endings + 1
    }

    /// Makes durable what completed before number `covers` [R8].
    pub fn flush(&mut self, covers: u64) {
        let mut order: Vec<(u64, u64)> = self
            .pending
            .iter()
            .filter(|pending| !pending.failed)
            .filter_map(|pending| Some((pending.ended?, pending.sequence)))
            .filter(|&(ended, _)| ended < covers)
            .collect();
        order.sort_unstable();
        for (_, sequence) in order {
            let index = self.find(sequence).expect("flushing removes nothing else");
            self.make_durable(index);
        }
        self.drop_void();
    }

    pub fn snapshot(&self) -> Snapshot {
        let Media { live, durable, pending, .. } = self;
        let pending = pending.iter().cloned().collect();
        Snapshot { live: live.clone(), durable: durable.clone(), pending }
    }

    /// Turns a bit over wherever this byte is kept.
    pub fn flip_bit(&mut self, offset: u64, bit: u8) {
        self.live.flip_bit(offset, bit);
        self.durable.flip_bit(offset, bit);
    }

    fn find(&self, sequence: u64) -> Option<usize> {
        self.pending.iter().position(|pending| pending.sequence == sequence)
    }

    fn make_durable(&mut self, index: usize) {
        let newest = Arc::make_mut(&mut self.pending[index]);
        let ended = newest.ended.expect("only completed writes become durable");
        let first = newest.first;
        let pages = std::mem::take(&mut newest.pages);
        let end = first + pages.len() as u64;
        for (page, number) in pages.into_iter().zip(first..) {
            if let Some(page) = page {
                self.durable.set_page(number, page);
            }
        }
        for older in &mut self.pending {
            let range = older.first..older.first + older.pages.len() as u64;
            let shared = range.start.max(first)..range.end.min(end);
            if older.ended.is_some_and(|at| at < ended) && shared.start < shared.end {
                let older = Arc::make_mut(older);
                for number in shared {
                    older.pages[(number - older.first) as usize] = None;
                }
            }
        }
    }

    fn drop_void(&mut self) {
        self.pending.retain(|pending| pending.pages.iter().any(Option::is_some));
    }
}

/// A disk at one moment: what reads return, what certainly survives, and what may.
#[derive(Clone)]
pub struct Snapshot {
    live: Image,
    durable: Image,
    pending: Vec<Arc<Pending>>,
}

impl Snapshot {
    /// What reads return: the disk after its power was never lost.
    pub fn live(&self) -> &Image {
        &self.live
    }

    /// What certainly survives: the disk after a crash that lost all it may lose.
    pub fn durable(&self) -> &Image {
        &self.durable
    }

    /// Writes that a crash may lose, tear or keep.
    pub fn pending_writes(&self) -> usize {
        self.pending.len()
    }

    /// What a crash at this moment leaves, by `random`'s choice: all that is durable, and of each
    /// other write everything, nothing, a beginning, or any of its 512 B sectors. Newer writes may
    /// survive where older ones do not.
    pub fn crash_image(&self, random: &mut Random) -> Image {
        let mut image = self.durable.clone();
        // Some crashes come right after a destage, some find the whole cache unwritten.
        let mood = random.below(4);
        for pending in &self.pending {
            let sectors = (pending.pages.len() * SECTORS) as u64;
            let kept = match (mood, random.below(4)) {
                (0, _) | (_, 0) => Kept::None,
                (1, _) | (_, 1) => Kept::All,
                (_, 2) => Kept::First(random.below(sectors + 1)),
                _ => Kept::Some,
            };
            keep(&mut image, pending, kept, random);
        }
        image
    }
}

#[derive(Clone, Copy)]
enum Kept {
    All,
    None,
    /// This many sectors from its start.
    First(u64),
    /// Each sector by itself.
    Some,
}

fn keep(image: &mut Image, pending: &Pending, kept: Kept, random: &mut Random) {
    for (index, page) in pending.pages.iter().enumerate() {
        let Some(page) = page else { continue };
        for sector in 0..SECTORS {
            let keep = match kept {
                Kept::All => true,
                Kept::None => false,
                Kept::First(count) => ((index * SECTORS + sector) as u64) < count,
                Kept::Some => random.one_in(2),
            };
            if keep {
                let at = (pending.first + index as u64) * PAGE as u64 + (sector * SECTOR) as u64;
                image.write(at, &page[sector * SECTOR..(sector + 1) * SECTOR]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r8_a_flush_covers_what_ended_before_it_began() {
        let mut media = Media::new(Image::new(1 << 20));
        let early = media.begin_write(0, &[1; PAGE]);
        let late = media.begin_write(PAGE as u64, &[2; PAGE]);
        media.end_write(early, false);
        let covers = media.next_ending();
        media.end_write(late, false);
        media.flush(covers);
        let mut bytes = [0; 2 * PAGE];
        media.snapshot().durable().read(0, &mut bytes);
        assert_eq!((bytes[0], bytes[PAGE]), (1, 0));
        media.flush(media.next_ending());
        media.snapshot().durable().read(0, &mut bytes);
        assert_eq!(bytes[PAGE], 2);
    }
}
