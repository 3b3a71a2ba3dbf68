//! Listing directories.
//!
//! Entries come in the order of the hash of their names; the position after an entry is its hash, which
//! does not depend on other entries: a listing is stable while others come and go. Two names may share a
//! hash (one in some 10^7 directories of a million entries): the handle remembers the name that went
//! with the last position it gave out, so nothing is lost or doubled.

use super::core::Core;
use super::error::NamespaceError;
use super::handles::Listing;
use super::tx::decode;
use super::types::{Attr, DirEntry, FileKind};
use crate::base::Ino;
use crate::format::{DirentValue, Key, KeyView};

/// Position after `.`.
const AFTER_DOT: u64 = 1;
/// Position after `..`.
const AFTER_DOT_DOT: u64 = 2;
/// Entries fetched at a time.
const ENTRIES_PER_SCAN: usize = 128;

impl Core {
    /// Lists from `cookie` on, until `add` says that it did not take an entry.
    pub(super) fn readdir(
        &self,
        ino: Ino,
        handle: u64,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<(), NamespaceError> {
        let directory = self.look(|tx| tx.inode(ino))?;
        if directory.kind != FileKind::Directory {
            return Err(NamespaceError::NotDirectory);
        }
        let mut dots = Vec::new();
        if cookie < AFTER_DOT {
            dots.push((ino, AFTER_DOT, b".".to_vec()));
        }
        if cookie < AFTER_DOT_DOT {
            dots.push((directory.parent, AFTER_DOT_DOT, b"..".to_vec()));
        }
        for (ino, cookie, name) in dots {
            if !add(&DirEntry { ino, kind: FileKind::Directory, cookie, name }) {
                return Ok(());
            }
        }
        let mut last = self.resume(handle, cookie)?;
        let mut start = Some(if last.name.is_empty() {
            Key::dirents_from(ino, last.cookie + 1)
        } else {
            Key::dirent(ino, last.cookie, &last.name)
        });
        while let Some(from) = start {
            let (entries, next) = self.entries_from(ino, &from, &last)?;
            for entry in entries {
                if !add(&entry) {
                    self.remember(handle, last);
                    return Ok(());
                }
                last = Listing { cookie: entry.cookie, name: entry.name };
            }
            start = next;
        }
        self.remember(handle, last);
        Ok(())
    }

    /// Entries with attributes; one that was removed meanwhile is left out. Every taken entry is one
    /// reference, except `.` and `..`.
    pub(super) fn readdirplus(
        &self,
        ino: Ino,
        handle: u64,
        cookie: u64,
        add: &mut dyn FnMut(&DirEntry, &Attr) -> bool,
    ) -> Result<(), NamespaceError> {
        let mut failed = None;
        self.readdir(ino, handle, cookie, &mut |entry| {
            let is_dot = entry.name == b"." || entry.name == b"..";
            let attr = self.look(|tx| {
                let record = tx.inode(entry.ino)?;
                if !is_dot {
                    tx.refer(entry.ino, ino);
                }
                Ok(tx.attr(entry.ino, &record))
            });
            let attr = match attr {
                Ok(attr) => attr,
                Err(NamespaceError::NotFound) => return true,
                Err(error) => {
                    failed = Some(error);
                    return false;
                }
            };
            let taken = add(entry, &attr);
            if !taken && !is_dot {
                self.forget(entry.ino, 1);
            }
            taken
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Some entries from a key on, without the one that was given out last; and where to go on.
    fn entries_from(
        &self,
        ino: Ino,
        from: &Key,
        last: &Listing,
    ) -> Result<(Vec<DirEntry>, Option<Key>), NamespaceError> {
        let scan = self.look(|tx| tx.scan(from, &Key::dirents_end(ino), ENTRIES_PER_SCAN))?;
        let mut entries = Vec::with_capacity(scan.entries.len());
        for (key, value) in &scan.entries {
            let KeyView::Dirent { hash, name, .. } = decode(KeyView::decode(key))? else {
                continue;
            };
            if hash == last.cookie && name == last.name.as_slice() {
                continue;
            }
            let value = decode(DirentValue::decode(value))?;
            entries.push(DirEntry {
                ino: value.ino,
                kind: value.kind,
                cookie: hash,
                name: name.to_vec(),
            });
        }
        Ok((entries, scan.next.map(|next| Key::from_bytes(&next))))
    }

    /// Where a listing goes on.
    fn resume(&self, handle: u64, cookie: u64) -> Result<Listing, NamespaceError> {
        let mut state = self.state.lock();
        let open = state.handles.get_mut(handle).ok_or(NamespaceError::BadHandle)?;
        match &open.listing {
            Some(listing) if listing.cookie == cookie => Ok(listing.clone()),
            _ => Ok(Listing { cookie: cookie.max(AFTER_DOT_DOT), name: Vec::new() }),
        }
    }

    fn remember(&self, handle: u64, last: Listing) {
        if let Some(open) = self.state.lock().handles.get_mut(handle) {
            open.listing = Some(last);
        }
    }
}
