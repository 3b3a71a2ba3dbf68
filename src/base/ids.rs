//! Identities. Each is its own type, so that one can never be passed where another is meant.
//!
//! [R5] Ids never recur, crashes included: an object id is `epoch ‖ counter`, and an epoch is
//! claimed by one mount only; inode numbers are handed out from leases that were made durable first.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// Position of a disk in the pool's member table, 0..=65534. Never reused for another disk.
    DiskIndex(u16)
);
id!(
    /// Rank of a shard inside its object: data shards first, parity after; or the replica number.
    ShardIndex(u8)
);
id!(
    /// Log sequence number of a batch. The first batch of a pool is 1; 0 means "none yet".
    Lsn(u64)
);
id!(
    /// Number of a read-write mount of the pool; each claims the next one [R2]. At most 2^24 - 1.
    Epoch(u32)
);
id!(
    /// Inode number. 1 is the root directory. Never reused.
    Ino(u64)
);
id!(
    /// Identifies one request on one disk's queue, for cancelling it.
    RequestId(u64)
);

impl Lsn {
    /// The batch after this one.
    pub fn next(self) -> Lsn {
        Lsn(self.0.checked_add(1).expect("2^64 batches are never reached"))
    }
}

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
}

impl DiskIndex {
    /// For indexing per-disk vectors.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

impl ShardIndex {
    /// For indexing per-shard vectors.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

/// Identity of an immutable object: the epoch that created it (24 bits) and a counter (40 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// Bits of the counter part.
    pub const COUNTER_BITS: u32 = 40;

    /// Joins the two parts. Panics if either is out of its range: both come from our own counters.
    pub fn new(epoch: Epoch, counter: u64) -> ObjectId {
        assert!(epoch.0 < 1 << 24, "epochs are 24 bits");
        assert!(counter < 1 << Self::COUNTER_BITS, "object counters are 40 bits");
        ObjectId(u64::from(epoch.0) << Self::COUNTER_BITS | counter)
    }

    /// The epoch whose mount created the object.
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> Self::COUNTER_BITS) as u32)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.epoch().0, self.0 & ((1 << Self::COUNTER_BITS) - 1))
    }
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (index, byte) in self.0.iter().enumerate() {
                    if matches!(index, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

uuid!(
    /// Identity of a pool, drawn at create.
    PoolUuid
);
uuid!(
    /// Identity of one member disk, drawn when it joins.
    DiskUuid
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_id_keeps_its_parts() {
        let id = ObjectId::new(Epoch(7), 0x1234);
        assert_eq!(id.epoch(), Epoch(7));
        assert_eq!(id.to_string(), "7.1234");
        assert!(ObjectId::new(Epoch(8), 0) > id);
    }

    #[test]
    fn uuids_print_in_the_usual_groups() {
        let uuid = PoolUuid([0xab; 16]);
        assert_eq!(uuid.to_string(), "abababab-abab-abab-abab-abababababab");
    }
}
