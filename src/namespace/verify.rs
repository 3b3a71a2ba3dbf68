//! What the disks hold of an object, beside what the index says of it: every shard is read, and the
//! list of owners inside the object is compared with the extents that point into it [R17].
//!
//! Others may write meanwhile. An object is pinned while it is read; one that is deleted is passed over;
//! what the owners' list and the extents say is compared again if they do not agree at first.

use std::collections::{BTreeMap, BTreeSet};

use super::Namespace;
use super::core::Core;
use super::error::NamespaceError;
use super::index::Snapshot;
use super::read::{IndexLists, Located};
use super::tx::{Attempt, Tx};
use crate::base::sync::Arc;
use crate::base::{Ino, ObjectId};
use crate::fleet::{FleetError, ShardHealth};
use crate::format::manifest::Manifest;
use crate::format::table::{TableMeta, bad_parts};
use crate::format::{Key, ObjectKind, ObjectRecord, Piece, SpaceSnapshot, decode_pieces};

/// How often owners and extents are compared before they are said to disagree.
const ROUNDS: u32 = 4;

/// What the disks hold of one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectHealth {
    /// Which object.
    pub object: ObjectId,
    /// What it holds.
    pub kind: ObjectKind,
    /// How many readable shards it takes.
    pub need: usize,
    /// Its shards, in their order.
    pub shards: Vec<ShardHealth>,
    /// Bytes that they take on all disks together.
    pub disk_bytes: u64,
    /// Of bytes of files: whose they were when it was written; None if that cannot be read.
    pub owners: Option<Vec<Ino>>,
    /// False if extents point at bytes of it that its own list says are somebody else's [R17].
    pub agrees: bool,
}

/// The objects that no key of the index names: its tables, and the chains that the root names.
pub struct Unkeyed {
    objects: Vec<(Arc<Located>, Option<TableMeta>)>,
    /// Keeps the tables where they are.
    _index: Snapshot,
}

impl Namespace {
    /// Reads all shards of an object with bytes of files; None if there is no such object any more.
    pub fn verify_object(&self, object: ObjectId) -> Result<Option<ObjectHealth>, NamespaceError> {
        match self.core.verify_object(object) {
            Err(NamespaceError::Io(FleetError::Deleted { .. })) => Ok(None),
            other => other,
        }
    }

    /// The tables of the index and what the root names, kept where they are.
    pub fn unkeyed(&self) -> Unkeyed {
        let core = &self.core;
        let state = core.state.lock();
        let index = core.index.snapshot();
        let tables = index.tables().into_iter().map(|(record, meta)| (record, Some(meta)));
        let chains = state.chains.iter().map(|record| (record.clone(), None));
        let objects = tables
            .chain(chains)
            .map(|(record, meta)| (Arc::new(Located::pinned(core, record)), meta))
            .collect();
        drop(state);
        Unkeyed { objects, _index: index }
    }

    /// Reads all copies of one of those.
    pub fn verify_unkeyed(&self, unkeyed: &Unkeyed, number: usize) -> ObjectHealth {
        let (located, meta) = &unkeyed.objects[number];
        let record = &located.record;
        let shards = self.core.objects.verify(record, &mut |_, payload| {
            let bytes = payload.get(..record.length as usize)?;
            Some(match (record.kind, meta) {
                (_, Some(meta)) => bad_parts(bytes, meta),
                (ObjectKind::Manifest, None) => {
                    u32::from(Manifest::decode(bytes, record.id).is_err())
                }
                (_, None) => u32::from(SpaceSnapshot::decode(bytes, record.id).is_err()),
            })
        });
        ObjectHealth::new(record, shards)
    }

    /// Whose bytes lie in these objects, as the index says: some inodes of each.
    pub fn owners(
        &self,
        objects: &BTreeSet<ObjectId>,
        each: usize,
    ) -> Result<BTreeMap<ObjectId, Vec<Ino>>, NamespaceError> {
        super::audit::owners(&self.core.index, objects, each)
    }

    /// One path to each of these, where one leads there.
    pub fn paths(&self, inodes: &BTreeSet<Ino>) -> Result<BTreeMap<Ino, Vec<u8>>, NamespaceError> {
        super::audit::paths(&self.core.index, inodes)
    }
}

impl Unkeyed {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// What they are.
    pub fn records(&self) -> Vec<ObjectRecord> {
        self.objects.iter().map(|(located, _)| located.record.clone()).collect()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Bytes that they take on all disks together.
    pub fn disk_bytes(&self) -> u64 {
        self.objects.iter().map(|(located, _)| super::compact::disk_bytes(&located.record)).sum()
    }
}

impl ObjectHealth {
    fn new(record: &ObjectRecord, shards: Vec<ShardHealth>) -> ObjectHealth {
        ObjectHealth {
            object: record.id,
            kind: record.kind,
            need: record.redundancy.data_shards(),
            shards,
            disk_bytes: super::compact::disk_bytes(record),
            owners: None,
            agrees: true,
        }
    }

    /// How many of its shards can be read.
    pub fn readable(&self) -> usize {
        self.shards.iter().filter(|shard| shard.is_readable()).count()
    }

    /// Nothing is to be said of it.
    pub fn is_whole(&self) -> bool {
        self.agrees && self.shards.iter().all(|&shard| shard == ShardHealth::Good)
    }
}

impl Core {
    fn verify_object(&self, object: ObjectId) -> Result<Option<ObjectHealth>, NamespaceError> {
        let Some(located) = self.look(|tx| tx.located(object))? else { return Ok(None) };
        let record = &located.record;
        let lists = IndexLists { core: self };
        let shards = self.objects.verify_cells(record, &lists)?;
        let mut health = ObjectHealth::new(record, shards);
        if health.readable() < health.need {
            return Ok(Some(health));
        }
        let range = record.pieces_offset..record.length;
        let pieces = match self.objects.peek(record, &lists, range) {
            Ok(bytes) => decode_pieces(record, &bytes).ok(),
            Err(FleetError::Unreadable { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(pieces) = pieces else {
            health.agrees = false;
            return Ok(Some(health));
        };
        let owners: BTreeSet<Ino> = pieces.iter().map(|piece| piece.ino).collect();
        health.owners = Some(owners.into_iter().collect());
        let mut round = 1;
        loop {
            let (alive, counted) = self.alive_and_counted(object, &pieces)?;
            let Some(counted) = counted else { return Ok(None) };
            health.agrees = i64::try_from(alive) == Ok(counted);
            if health.agrees || round == ROUNDS {
                return Ok(Some(health));
            }
            round += 1;
        }
    }

    /// Bytes that extents of its owners have in the object, and how many the index counts; None if the
    /// object is gone.
    fn alive_and_counted(
        &self,
        object: ObjectId,
        pieces: &[Piece],
    ) -> Result<(u64, Option<i64>), NamespaceError> {
        let mut alive = 0;
        for piece in pieces {
            alive += self.alive_of(object, piece)?;
        }
        let counted = self.look(|tx| {
            if tx.get(&Key::object(object))?.is_none() {
                return Ok(None);
            }
            tx.counter(&Key::live(object)).map(Some)
        })?;
        Ok((alive, counted))
    }
}

impl Tx<'_> {
    /// The object's record, pinned, if the index names it.
    fn located(&mut self, object: ObjectId) -> Attempt<Option<Arc<Located>>> {
        if self.get(&Key::object(object))?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.locate(object, &[])?))
    }
}
