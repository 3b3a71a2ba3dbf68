//! Making things durable [I1], and handing out inode numbers [R5].

use super::core::Core;
use super::error::NamespaceError;
use crate::base::canary::{self, Bug};
use crate::base::{Ino, Lsn};
use crate::format::Key;

/// Inode numbers of one lease: one commit for so many new files.
const LEASE_INODES: u64 = 1 << 16;
/// Key of the lease.
pub(super) const LEASE_KEY: &[u8] = b"ino_lease";

impl Core {
    /// The file's data and attributes, and its name with all history before it, survive from now on.
    pub(super) fn fsync(&self, ino: Ino) -> Result<(), NamespaceError> {
        // Small dirty data goes into the journal with the batch, large data into objects first.
        let limit = self.inline_bytes_max();
        let lsn = self.change(|tx| {
            if canary::planted(Bug::FsyncWithoutData) {
                return Ok(tx.lsn());
            }
            match tx.inline_cut(ino, limit) {
                // Deleted meanwhile: nothing to make durable but its deletion.
                Err(super::tx::Stop::Error(NamespaceError::NotFound)) => {}
                Err(stop) => return Err(stop),
                Ok(()) => {}
            }
            Ok(tx.lsn())
        });
        let lsn = match lsn {
            Ok(lsn) => lsn,
            Err(NamespaceError::ReadOnly) if self.options.read_only => return Ok(()),
            Err(error) => return Err(error),
        };
        if canary::planted(Bug::FsyncUnwaited) {
            return Ok(());
        }
        self.commit_through(lsn)
    }

    /// All history so far survives from now on.
    pub(super) fn commit_all(&self) -> Result<(), NamespaceError> {
        let lsn = self.state.lock().open.lsn;
        self.commit_through(lsn)
    }

    /// Waits for batch `lsn`, or, if it is open and empty, for the one before.
    fn commit_through(&self, lsn: Lsn) -> Result<(), NamespaceError> {
        let wait_for = {
            let mut state = self.state.lock();
            if state.open.lsn == lsn { self.want_commit(&mut state) } else { lsn }
        };
        self.wait_durable(wait_for)
    }

    /// Everything done before the call survives from now on: all dirty data becomes objects.
    pub(super) fn sync(&self) -> Result<(), NamespaceError> {
        // As of now: who goes on writing does not keep us here.
        let dirty: Vec<(Ino, u64)> = {
            let state = self.state.lock();
            let dirty = state.dirty.iter();
            dirty.map(|&(_, ino)| (ino, state.inodes[&ino].overlay.seq())).collect()
        };
        if !dirty.is_empty() {
            {
                let mut state = self.state.lock();
                state.flush_all += 1;
                // What went wrong before is tried again now, and may go well.
                state.flush_error = None;
            }
            self.flush_event.notify();
            let mut failed = None;
            self.wait.until(&self.flushed, None, &mut || {
                let state = self.state.lock();
                if let Some(error) = &state.failed {
                    failed = Some(NamespaceError::Io(error.clone()));
                    return true;
                }
                if let Some(error) = state.flush_error.as_ref().filter(|_| state.flush_all > 0) {
                    failed = Some(super::flush::no_space(error.clone()));
                    return true;
                }
                dirty.iter().all(|(ino, seq)| {
                    state.inodes.get(ino).is_none_or(|inode| {
                        inode.settled >= *seq && *seq > 0 || !inode.unlogged && !inode.flushing
                    })
                })
            });
            self.state.lock().flush_all -= 1;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        self.commit_all()
    }

    /// A fresh inode number, from a lease that is durable.
    pub(super) fn new_ino(&self) -> Result<Ino, NamespaceError> {
        loop {
            {
                let mut state = self.state.lock();
                state.check_writable()?;
                if state.next_ino < state.ino_lease {
                    let ino = Ino(state.next_ino);
                    state.next_ino += 1;
                    return Ok(ino);
                }
            }
            let lease = self.make_lease()?;
            let mut state = self.state.lock();
            state.ino_lease = state.ino_lease.max(lease);
        }
    }

    /// Makes a longer lease durable.
    fn make_lease(&self) -> Result<u64, NamespaceError> {
        let (lease, lsn) = self.change(|tx| {
            let lease = tx.state.ino_lease.checked_add(LEASE_INODES);
            let lease = lease.ok_or(NamespaceError::NoSpace)?;
            tx.put(Key::meta(LEASE_KEY), lease.to_le_bytes().to_vec());
            tx.state.ino_lease_told = tx.state.ino_lease_told.max(lease);
            Ok((lease, tx.lsn()))
        })?;
        if canary::planted(Bug::InodesAgain) {
            return Ok(lease);
        }
        self.commit_through(lsn)?;
        Ok(lease)
    }
}

#[cfg(test)]
impl super::Namespace {
    /// The moment between a lease's commit and its use, in which callers run on other threads, and
    /// which one thread alone never sees.
    pub(crate) fn with_lease_before_its_use(&self, meanwhile: impl FnOnce()) {
        let lease = self.core.make_lease().expect("it commits");
        meanwhile();
        self.core.state.lock().ino_lease = lease;
    }
}

/// The lease that a replayed batch made.
pub(super) fn lease_of(key: &[u8], value: &[u8]) -> Option<u64> {
    if key == Key::meta(LEASE_KEY).as_bytes() {
        return value.try_into().ok().map(u64::from_le_bytes);
    }
    None
}
