//! Writing, truncating and allocating: changes of a file's content.
//!
//! All of them change the overlay in memory under the lock, in one step; nothing waits for a disk but
//! for room in the write buffer, and that before the lock [R23, R27]. A write is seen whole or not at
//! all by readers. What is on disk follows with the next cut.

use std::ops::Range;

use super::acl::Acl;
use super::chunk::Chunk;
use super::core::Core;
use super::error::NamespaceError;
use super::overlay::{After, Source};
use super::tx::{Attempt, Stop, Tx};
use super::types::{Allocate, Attr, Caller, FileKind, Seek, SetAttr, SetTime};
use super::{acl, attr};
use crate::base::canary::{self, Bug};
use crate::base::limits::FILE_BYTES_MAX;
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::base::{Ino, UNIT_BYTES};
use crate::format::{InodeRecord, Key};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;
/// File capabilities are privileges too.
const CAPABILITY: &[u8] = b"security.capability";

/// What a caller who may not keep them loses when it changes content.
pub(super) fn without_privileges(mode: u16) -> u16 {
    let mut mode = mode & !SET_UID;
    if mode & GROUP_EXECUTE != 0 {
        mode &= !SET_GID;
    }
    mode
}

/// Room in the write buffer, taken before the lock; given back when the bytes are counted as dirty.
struct Admission<'a> {
    core: &'a Core,
    bytes: u64,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.core.admitted.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

impl Core {
    /// Writes all of `data`; returns the attributes afterwards.
    pub(super) fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        append: bool,
        kill_privileges: bool,
    ) -> Result<u64, NamespaceError> {
        let admission = self.admit(data.len() as u64)?;
        let chunk = Arc::new(Chunk::copy_of(data, &self.chunks));
        let end = self.change(|tx| {
            let mut record = tx.regular_file(ino)?;
            let offset = if append { record.size } else { offset };
            let end = offset
                .checked_add(chunk.len() as u64)
                .filter(|&end| end <= FILE_BYTES_MAX)
                .ok_or(NamespaceError::FileTooBig)?;
            if kill_privileges {
                tx.kill_privileges(ino, &mut record)?;
            }
            record.size = record.size.max(end);
            record.mtime = tx.now();
            record.ctime = tx.now();
            let chunk = chunk.clone();
            tx.change_content(ino, record, |overlay, after| overlay.write(offset, chunk, after));
            Ok(end)
        })?;
        drop(admission);
        Ok(end)
    }

    /// Waits until `bytes` more fit the write buffer, and there will be room for them on the disks.
    fn admit(&self, bytes: u64) -> Result<Admission<'_>, NamespaceError> {
        self.check_placeable(bytes)?;
        let fits = || {
            let state = self.state.lock();
            let admitted = self.admitted.load(Ordering::SeqCst);
            let total = state.dirty_bytes + admitted + bytes;
            if state.failed.is_some() || state.read_only {
                return true;
            }
            if total > self.dirty_bytes_max() && state.dirty_bytes + admitted > 0 {
                return false;
            }
            self.admitted.fetch_add(bytes, Ordering::SeqCst);
            true
        };
        let mut admitted = false;
        self.wait.until(&self.flushed, None, &mut || {
            admitted = fits();
            admitted
        });
        let admission = Admission { core: self, bytes };
        let state = self.state.lock();
        if state.failed.is_some() || state.read_only {
            // Nothing was counted in this case.
            self.admitted.fetch_add(bytes, Ordering::SeqCst);
        }
        state.check_writable()?;
        drop(state);
        Ok(admission)
    }

    /// Changes attributes, size included; returns them all.
    pub(super) fn setattr(
        &self,
        ino: Ino,
        change: &SetAttr,
        caller: Caller,
    ) -> Result<Attr, NamespaceError> {
        self.change(|tx| {
            let mut record = tx.inode(ino)?;
            if let Some(size) = change.size {
                if record.kind == FileKind::Directory {
                    return Err(NamespaceError::IsDirectory.into());
                }
                if record.kind != FileKind::File {
                    return Err(NamespaceError::Invalid.into());
                }
                if size > FILE_BYTES_MAX {
                    return Err(NamespaceError::FileTooBig.into());
                }
            }
            let now = tx.now();
            if let Some(uid) = change.uid {
                record.uid = uid;
            }
            if let Some(gid) = change.gid {
                record.gid = gid;
            }
            let new_owner = change.uid.is_some() || change.gid.is_some();
            let loses = new_owner || change.size.is_some() && caller.uid != 0;
            let may_lose =
                record.kind == FileKind::File || new_owner && record.kind != FileKind::Directory;
            if loses && change.mode.is_none() && may_lose {
                tx.kill_privileges(ino, &mut record)?;
            }
            if let Some(mode) = change.mode {
                record.mode = (mode & 0o7777) as u16;
                tx.chmod_acl(ino, record.mode)?;
            }
            if let Some(size) = change.size {
                record.mtime = now;
                record.ctime = now;
                tx.resize(ino, record.clone(), size);
                record.size = size;
            }
            let at = |time: SetTime| match time {
                SetTime::Now => now,
                SetTime::At(time) => time,
            };
            if let Some(time) = change.atime {
                record.atime = at(time);
            }
            if let Some(time) = change.mtime {
                record.mtime = at(time);
            }
            record.ctime = now;
            tx.put_attributes(ino, record.clone());
            Ok(attr::attr_of(tx.state, ino, &record))
        })
    }

    /// Cuts a file to nothing as part of opening it.
    pub(super) fn truncate_on_open(&self, ino: Ino, caller: Caller) -> Result<(), NamespaceError> {
        self.change(|tx| {
            let mut record = tx.regular_file(ino)?;
            if caller.uid != 0 {
                tx.kill_privileges(ino, &mut record)?;
            }
            record.mtime = tx.now();
            record.ctime = tx.now();
            tx.resize(ino, record, 0);
            Ok(())
        })
    }

    /// fallocate. Copy on write means that reserving blocks guarantees nothing for later overwrites;
    /// what is promised is that there is room now (`docs/semantics.md`).
    pub(super) fn allocate(
        &self,
        ino: Ino,
        what: Allocate,
        offset: u64,
        length: u64,
        caller: Caller,
    ) -> Result<(), NamespaceError> {
        if length == 0 {
            return Err(NamespaceError::Invalid);
        }
        let end = offset
            .checked_add(length)
            .filter(|&end| end <= FILE_BYTES_MAX)
            .ok_or(NamespaceError::FileTooBig)?;
        if matches!(what, Allocate::Extend | Allocate::KeepSize) {
            self.check_placeable(length)?;
        }
        self.change(|tx| {
            let mut record = tx.regular_file(ino)?;
            if caller.uid != 0 {
                tx.kill_privileges(ino, &mut record)?;
            }
            let size = record.size;
            if matches!(what, Allocate::Extend | Allocate::Zero) {
                record.size = size.max(end);
            }
            let zeroes =
                matches!(what, Allocate::PunchHole | Allocate::Zero | Allocate::ZeroKeepSize);
            // Both, whatever changed: as on ext4 and tmpfs.
            record.mtime = tx.now();
            record.ctime = tx.now();
            let hole = if zeroes { offset..end.min(size).max(offset) } else { 0..0 };
            tx.change_content(ino, record, |overlay, after| {
                if hole.is_empty() {
                    overlay.touch();
                } else {
                    overlay.punch(hole.clone(), after);
                }
            });
            Ok(())
        })
    }

    /// The next data or hole at or after `offset`.
    pub(super) fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, NamespaceError> {
        self.look(|tx| {
            let record = tx.regular_file(ino)?;
            if offset >= record.size {
                return Err(NamespaceError::NoData.into());
            }
            let mut at = offset;
            while at < record.size {
                // In windows, so that a huge sparse file costs bounded work per round.
                let window = at..record.size;
                match tx.first_run(ino, window, what == Seek::Data)? {
                    Ok(found) => return Ok(found),
                    Err(next) => at = next,
                }
            }
            match what {
                Seek::Data => Err(NamespaceError::NoData.into()),
                Seek::Hole => Ok(record.size),
            }
        })
    }

    /// [R22] ENOSPC comes here, before anything is accepted that could not be written.
    pub(super) fn check_placeable(&self, bytes: u64) -> Result<(), NamespaceError> {
        let dirty = self.state.lock().dirty_bytes + self.admitted.load(Ordering::SeqCst);
        if self.room_bytes() >= dirty + bytes {
            return Ok(());
        }
        // Frees that are on their way count before anyone is refused, and what can be reclaimed.
        self.settle_frees()?;
        let enough = || {
            let dirty = self.state.lock().dirty_bytes + self.admitted.load(Ordering::SeqCst);
            self.room_bytes() >= dirty + bytes
        };
        if !enough() {
            self.want_room(&enough);
        }
        if enough() { Ok(()) } else { Err(NamespaceError::NoSpace) }
    }
}

impl Tx<'_> {
    pub(super) fn regular_file(&mut self, ino: Ino) -> Attempt<InodeRecord> {
        let record = self.inode(ino)?;
        match record.kind {
            FileKind::File => Ok(record),
            FileKind::Directory => Err(NamespaceError::IsDirectory.into()),
            FileKind::Symlink
            | FileKind::BlockDevice
            | FileKind::CharDevice
            | FileKind::Fifo
            | FileKind::Socket => Err(NamespaceError::Invalid.into()),
        }
    }

    /// Clears suid, sgid and capabilities, as a change by someone without the right to keep them.
    pub(super) fn kill_privileges(&mut self, ino: Ino, record: &mut InodeRecord) -> Attempt<()> {
        record.mode = without_privileges(record.mode);
        let key = Key::xattr(ino, CAPABILITY);
        if self.get(&key)?.is_some() {
            self.delete(key);
        }
        Ok(())
    }

    /// chmod of an inode with an access ACL changes the ACL too.
    fn chmod_acl(&mut self, ino: Ino, mode: u16) -> Attempt<()> {
        let key = Key::xattr(ino, acl::ACCESS);
        if let Some(value) = self.get(&key)?
            && let Some(mut list) = Acl::decode(&value)
        {
            // The list enters the batch now; what was written before must be there too [I2].
            if self.state.inodes.get(&ino).is_some_and(|inode| inode.unlogged) {
                return Err(Stop::Flush(ino));
            }
            list.set_mode(u32::from(mode));
            self.put(key, list.encode());
        }
        Ok(())
    }

    /// The file gets this size; what lay beyond it is gone, and reads as zeros if it grows again.
    pub(super) fn resize(&mut self, ino: Ino, mut record: InodeRecord, size: u64) {
        let kept = canary::planted(Bug::TailKept);
        let cut = if kept { size.next_multiple_of(UNIT_BYTES) } else { size }..u64::MAX;
        let shrinks = size < record.size;
        record.size = size;
        self.change_content(ino, record, |overlay, after| {
            if shrinks {
                overlay.punch(cut, after);
            } else {
                overlay.touch();
            }
        });
    }

    /// Changes the overlay of a file, together with its record in memory. The last step of an
    /// operation: nothing may fail after it.
    pub(super) fn change_content(
        &mut self,
        ino: Ino,
        record: InodeRecord,
        change: impl FnOnce(&mut super::overlay::Overlay, After),
    ) {
        let now = self.core.now();
        self.state.mark_dirty(ino, now);
        let state = &mut *self.state;
        if std::mem::take(&mut state.flusher_sleeps) {
            self.core.flush_event.notify();
        }
        let inode = state.inodes.get_mut(&ino).expect("it was just made");
        let before = inode.overlay.data_bytes();
        let after = After::of(&record);
        inode.record = Some(Box::new(record));
        inode.unlogged = true;
        change(&mut inode.overlay, after);
        state.dirty_bytes = state.dirty_bytes + inode.overlay.data_bytes() - before;
        if state.dirty_bytes >= self.core.flush_early_bytes() {
            self.core.flush_event.notify();
        }
    }

    /// The first byte of the window that is data (or a hole); or where to go on looking.
    fn first_run(&mut self, ino: Ino, window: Range<u64>, data: bool) -> Attempt<Result<u64, u64>> {
        let sources = match self.state.inodes.get(&ino) {
            Some(inode) => inode.overlay.sources(window.clone()),
            None => vec![(window.clone(), Source::Below)],
        };
        for (range, source) in sources {
            match source {
                Source::Data(_) | Source::Stored(..) if data => return Ok(Ok(range.start)),
                Source::Hole if !data => return Ok(Ok(range.start)),
                Source::Data(_) | Source::Stored(..) | Source::Hole => {}
                Source::Below => {
                    let mut at = range.start;
                    loop {
                        let (extents, rest) = self.extents(ino, at..range.end, 256)?;
                        for (offset, extent) in extents {
                            if data && !extent.unwritten {
                                return Ok(Ok(offset.max(at)));
                            }
                            if !data && offset > at {
                                return Ok(Ok(at));
                            }
                            at = offset + extent.length;
                        }
                        if rest.is_none() || at >= range.end {
                            break;
                        }
                    }
                    if !data && at < range.end {
                        return Ok(Ok(at));
                    }
                }
            }
        }
        Ok(Err(window.end))
    }
}
