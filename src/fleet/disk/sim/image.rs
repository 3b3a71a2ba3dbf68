//! What a simulated disk holds: bytes in 4 KiB pages, shared until changed, absent while zero.
//!
//! Cloning an image copies one pointer, so a snapshot can be taken at every event of a long run.

use std::collections::BTreeMap;

use crate::base::sync::Arc;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;
/// Pages of a chunk (1 MiB): what is copied when a shared image is written to.
const CHUNK: usize = 256;

pub(super) type Page = Arc<[u8; PAGE]>;

#[derive(Clone)]
struct Chunk([Option<Page>; CHUNK]);

/// The bytes of a disk.
#[derive(Clone)]
pub struct Image {
    bytes: u64,
    chunks: Arc<BTreeMap<u64, Arc<Chunk>>>,
}

impl Image {
    /// All zeros. `bytes` is a multiple of 4096.
    pub fn new(bytes: u64) -> Image {
        assert!(bytes > 0 && bytes.is_multiple_of(PAGE as u64), "an image is whole pages");
        Image { bytes, chunks: Arc::default() }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory behind it, roughly; zero pages cost nothing.
    pub fn resident_bytes(&self) -> u64 {
        let pages = |chunk: &Arc<Chunk>| chunk.0.iter().flatten().count() as u64;
        self.chunks.values().map(|chunk| pages(chunk) * PAGE as u64).sum()
    }

    /// Fills `out` from `offset`. Both whole pages or not; must lie inside.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        assert!(offset + out.len() as u64 <= self.bytes, "a read lies inside the image");
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let count = (PAGE - within).min(out.len() - done);
            match self.page(at / PAGE as u64) {
                Some(page) => {
                    out[done..done + count].copy_from_slice(&page[within..within + count]);
                }
                None => out[done..done + count].fill(0),
            }
            done += count;
        }
    }

    /// Writes `data` at `offset`; must lie inside.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        assert!(offset + data.len() as u64 <= self.bytes, "a write lies inside the image");
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let count = (PAGE - within).min(data.len() - done);
            let page = self.page_mut(at / PAGE as u64);
            page[within..within + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
    }

    /// Turns one bit over, in place: rot on the platter.
    pub fn flip_bit(&mut self, offset: u64, bit: u8) {
        let mut byte = [0];
        self.read(offset, &mut byte);
        self.write(offset, &[byte[0] ^ 1 << (bit % 8)]);
    }

    pub(super) fn page(&self, index: u64) -> Option<&Page> {
        self.chunks.get(&(index / CHUNK as u64))?.0[(index % CHUNK as u64) as usize].as_ref()
    }

    pub(super) fn set_page(&mut self, index: u64, page: Page) {
        *self.place(index) = Some(page);
    }

    fn page_mut(&mut self, index: u64) -> &mut [u8; PAGE] {
        Arc::make_mut(self.place(index).get_or_insert_with(|| Arc::new([0; PAGE])))
    }

    fn place(&mut self, index: u64) -> &mut Option<Page> {
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = chunks
            .entry(index / CHUNK as u64)
            .or_insert_with(|| Arc::new(Chunk([const { None }; CHUNK])));
        &mut Arc::make_mut(chunk).0[(index % CHUNK as u64) as usize]
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} bytes, {} resident)", self.bytes, self.resident_bytes())
    }
}
