//! What the index asks of the object store: three calls, so that the index needs no disks in tests.
//!
//! Tables are replicated objects whose parts carry their own checksum and identity (`format::table`),
//! so a read is verified by the index's own judge and goes to another replica when that says no [I4].

use crate::base::Lsn;
use crate::base::limits::CELL_BYTES_LARGE;
use crate::fleet::FleetError;
use crate::fleet::disk::Class;
use crate::fleet::object::{ObjectStore, WriteObject};
use crate::fleet::space::ReserveLevel;
use crate::format::{ObjectKind, ObjectRecord, Redundancy};

/// Where tables live. Calls may wait for disks; the index makes them without holding a lock [R23].
pub trait TableStore: Send + Sync {
    /// Reads bytes `offset .. offset + length` of a table object. Every replica in turn, until one
    /// holds bytes that `verify` accepts; `FleetError::Unreadable` if none does. The answer has been
    /// accepted by `verify`. `length` is at most a few MiB.
    fn read_block(
        &self,
        table: &ObjectRecord,
        offset: u32,
        length: u32,
        class: Class,
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, FleetError>;

    /// Writes `bytes` as a new object of kind `Table` with min(N, m+2) replicas, flushed when this
    /// returns. The object is not named by anything yet. At most `TABLE_BYTES_MAX` bytes. `lsn` is
    /// the highest LSN in it.
    fn write_table(
        &self,
        bytes: Vec<u8>,
        lsn: Lsn,
        class: Class,
    ) -> Result<ObjectRecord, FleetError>;

    /// Whether a copy of this table is on a disk that was given up: it is to be written again.
    fn lacks(&self, table: &ObjectRecord) -> bool;

    /// Gives a table back that no manifest has ever named: its flush or compaction was given up.
    fn free_table(&self, table: &ObjectRecord);
}

impl TableStore for ObjectStore {
    fn read_block(
        &self,
        table: &ObjectRecord,
        offset: u32,
        length: u32,
        class: Class,
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, FleetError> {
        self.read_table_block(table, offset, length, class, verify)
    }

    fn write_table(
        &self,
        bytes: Vec<u8>,
        lsn: Lsn,
        class: Class,
    ) -> Result<ObjectRecord, FleetError> {
        let copies = u8::try_from(self.members().metadata_copies())
            .expect("m + 2 copies: at most PARITY_MAX + 2");
        let stored = self.write(&WriteObject {
            id: None,
            kind: ObjectKind::Table,
            redundancy: Redundancy::Replica { copies },
            data: &[&bytes],
            pieces: &[],
            cell_bytes: CELL_BYTES_LARGE as u32,
            class,
            // Without it nothing could be committed any more, not even a delete [I7].
            level: ReserveLevel::Repair,
            lsn,
        })?;
        Ok(stored.record)
    }

    fn lacks(&self, table: &ObjectRecord) -> bool {
        self.members().lacks(table)
    }

    fn free_table(&self, table: &ObjectRecord) {
        self.release(table);
    }
}
