//! Every limit of the engine, each with its reason, and their relations asserted at compile time.

use super::units::{KIB, MIB};

/// Largest data shards per object; with `PARITY_MAX` bounded by `SHARDS_MAX`.
pub const SHARDS_MAX: usize = 32;
/// Largest parity shards per object.
pub const PARITY_MAX: usize = 8;
/// Bytes of a full shard: a seek costs as much as 1.4 to 2.3 MB of transfer (literature 3.7).
pub const SHARD_BYTES: u64 = 2 * MIB;
/// Bytes of a cell, the unit of checksum, of file content. Cells twice as large cost random reads of 4 KiB 6 to
/// 12 % on disks in memory; half as large, they gain 2 % and double the checksums in the index.
pub const CELL_BYTES: u64 = 32 * KIB;
/// Bytes of a cell of tables and chains, which are read in large pieces.
pub const CELL_BYTES_LARGE: u64 = 64 * KIB;
/// Largest object: 32 data shards would need a pool of 33 disks; (k <= 31) * 2 MiB.
pub const OBJECT_BYTES_MAX: u64 = (SHARDS_MAX as u64 - 1) * SHARD_BYTES;
/// Members of one pool. Two label fields and the root are sized by it.
pub const DISKS_MAX: usize = 64;
/// Longest file name in bytes (NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest symlink target in bytes (PATH_MAX).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Largest value of one extended attribute (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * KIB as usize;
/// Largest file: the largest off_t.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Hard links of one inode, as ext4's order of magnitude but with room.
pub const LINKS_MAX: u32 = 1 << 30;

/// A root, with its members and config, fits its checkpoint slot [R9].
pub const ROOT_BYTES_MAX: u64 = 64 * KIB;
/// A journal entry, header included [R19].
pub const ENTRY_BYTES_MAX: u64 = 8 * MIB;
/// Index changes of one operation [R19].
pub const OPERATION_BYTES_MAX: u64 = MIB;
/// Log written since the last checkpoint at which the next one starts [R10].
pub const CHECKPOINT_LOG_BYTES: u64 = 512 * MIB;
/// Time since the last checkpoint at which the next one starts, if anything changed [R10].
pub const CHECKPOINT_SECONDS: u64 = 60;
/// User batches stop at this share of a ring, in percent [R10].
pub const JOURNAL_USER_PERCENT: u64 = 75;
/// Flushing of logged data starts at this share of a ring, in percent [R10].
pub const JOURNAL_FLUSH_PERCENT: u64 = 50;
/// fsync goes inline up to this while the log is less than 25 % full [R13].
pub const INLINE_BYTES_EMPTY_LOG: u64 = 2 * MIB;
/// fsync goes inline up to this while the log is less than 50 % full [R13].
pub const INLINE_BYTES_HALF_LOG: u64 = 256 * KIB;
/// What nobody syncs is durable after this long, and the time that writing it takes.
pub const COMMIT_SECONDS: u64 = 5;
/// Unflushed bytes a background writer may leave on one disk [R8].
pub const BACKGROUND_UNFLUSHED_BYTES: u64 = 8 * MIB;

/// Buffers for disk I/O, all together [R27].
pub const BUFFER_POOL_BYTES: u64 = 256 * MIB;
/// Dirty data in the write buffer, upper bound [R27].
pub const DIRTY_BYTES_MAX: u64 = 512 * MIB;
/// Read cache by default (`-o cache=SIZE`).
pub const READ_CACHE_BYTES: u64 = 128 * MIB;
/// Block cache of the index by default.
pub const INDEX_CACHE_BYTES: u64 = 64 * MIB;
/// A memtable is frozen at this size.
pub const MEMTABLE_BYTES: u64 = 32 * MIB;
/// Memtables alive at once: one active, two frozen.
pub const MEMTABLES_MAX: u64 = 3;
/// What flushing and compacting the index takes: a piece of each input, and the table being built.
pub const INDEX_WORK_BYTES: u64 = 80 * MIB;
/// Bytes of sparse objects that are moved together; one object of any geometry fits.
pub const RECLAIM_BYTES: u64 = 64 * MIB;
/// Objects that are made whole again: one as it is read, and the shards that are made.
pub const REPAIR_BYTES: u64 = 80 * MIB;
/// All memory budgets together; a daemon under load stays below this plus code and stacks [R27].
pub const MEMORY_BYTES_MAX: u64 = 1280 * MIB;

const _: () = assert!(
    BUFFER_POOL_BYTES
        + DIRTY_BYTES_MAX
        + READ_CACHE_BYTES
        + INDEX_CACHE_BYTES
        + INDEX_WORK_BYTES
        + RECLAIM_BYTES
        + REPAIR_BYTES
        + MEMTABLES_MAX * MEMTABLE_BYTES
        <= MEMORY_BYTES_MAX,
    "R27: the memory budgets must fit the promise"
);
const _: () = assert!(PARITY_MAX < SHARDS_MAX);
const _: () =
    assert!(INLINE_BYTES_EMPTY_LOG * 2 <= ENTRY_BYTES_MAX, "an inline fsync fits an entry");
const _: () = assert!(JOURNAL_FLUSH_PERCENT < JOURNAL_USER_PERCENT);
const _: () = assert!(
    SHARD_BYTES.is_multiple_of(CELL_BYTES_LARGE) && CELL_BYTES_LARGE.is_multiple_of(CELL_BYTES)
);

/// How long a foreground read waits for a disk before another shard is asked.
pub const READ_DEADLINE_MS: u64 = 2_000;
/// How long mounting waits for a disk that does not answer: a drive in standby spins up first.
pub const MOUNT_READ_DEADLINE_MS: u64 = 20_000;
/// The same for disks that mounting cannot do without: late is not dead [R11].
pub const MOUNT_PATIENCE_MS: u64 = 60_000;
/// How long a write waits for a disk before its shard goes elsewhere [R12].
pub const WRITE_DEADLINE_MS: u64 = 10_000;
/// How long a flush may take before the disk counts as late: a drive may have to drain its cache.
pub const FLUSH_DEADLINE_MS: u64 = 10_000;
/// How long a batch waits for a log disk before another takes its copy, and the disk leaves the
/// rotation [R11]: several rotations and a drained cache of 8 MiB, but less than people notice twice.
pub const JOURNAL_LATE_MS: u64 = 2_000;
/// How long mounting waits for members that are not there yet, by default.
pub const MEMBERS_WAIT_SECONDS: u64 = 30;
