//! The audit of objects: records beside their checksums, and live bytes beside the files in them.

use std::collections::{BTreeMap, BTreeSet};

use super::{CHECKSUMS, EXTENTS, Finding, LIVE, OBJECTS, Walk, Window};
use crate::base::{DiskIndex, Ino, ObjectId, ShardIndex, Units};
use crate::format::{Checksums, ExtentValue, Key, KeyView, ObjectKind, ObjectRecord};
use crate::namespace::error::NamespaceError;
use crate::namespace::extent::checksum_lists;

/// An object of the window, and what was seen of it elsewhere.
struct Seen {
    /// Checksum lists that it has, and cells that each has.
    lists: usize,
    cells: usize,
    /// Bytes of files in it, dead or alive.
    content_bytes: u64,
    /// Bytes of extents that point at it.
    extents: u64,
    /// A file in it.
    ino: Option<Ino>,
    live: i64,
    /// Lists that were there and right.
    right: BTreeSet<ShardIndex>,
    /// Shards on disks that have no such place.
    outside: Vec<(DiskIndex, u64)>,
}

type Objects = BTreeMap<ObjectId, Seen>;

impl Walk<'_> {
    /// All objects with bytes of files, a window of ids at a time.
    pub(super) fn objects(&mut self) -> Result<(), NamespaceError> {
        let mut from = None;
        loop {
            let (window, mut objects) = self.records(from)?;
            self.owners(window, &mut objects)?;
            self.checksums(window, &mut objects)?;
            self.live_bytes(window, &mut objects)?;
            for (&object, seen) in &objects {
                self.judge_object(object, seen);
            }
            match window.to {
                Some(to) => from = Some(to),
                None => return Ok(()),
            }
        }
    }

    /// The next records, and which ids they cover.
    fn records(&mut self, from: Option<u64>) -> Result<(Window, Objects), NamespaceError> {
        let mut window = Window { from, to: None };
        let mut objects = Objects::new();
        let Walk { reader, audit, moment, window: limit, .. } = self;
        let areas: Option<BTreeMap<DiskIndex, Units>> =
            moment.space.as_ref().map(|disks| disks.iter().map(|d| (d.disk, d.area)).collect());
        reader.each(&window.start(OBJECTS), &window.end(OBJECTS), &mut |key, value| {
            match (KeyView::decode(key), ObjectRecord::decode(value)) {
                (Ok(KeyView::Object(object)), _) if objects.len() == *limit => {
                    window.to = Some(object.0);
                    return false;
                }
                (Ok(KeyView::Object(object)), Ok(record))
                    if object == record.id && record.kind == ObjectKind::Data =>
                {
                    audit.objects += 1;
                    objects.insert(object, Seen::new(&record, areas.as_ref()));
                }
                _ => audit.note(Finding::Unreadable { key: key.to_vec() }),
            }
            true
        })?;
        Ok((window, objects))
    }

    /// All extents, for those that point into the window.
    fn owners(&mut self, window: Window, objects: &mut Objects) -> Result<(), NamespaceError> {
        let Walk { reader, audit, .. } = self;
        reader.each(&Key::kind_from(EXTENTS), &Key::kind_from(EXTENTS + 1), &mut |key, value| {
            // What does not decode was found with the files.
            let (Ok(KeyView::Extent { ino, offset }), Ok(extent)) =
                (KeyView::decode(key), ExtentValue::decode(value))
            else {
                return true;
            };
            let ExtentValue { length, object, object_offset, unwritten } = extent;
            if unwritten || !window.has(object.0) {
                return true;
            }
            let Some(seen) = objects.get_mut(&object) else {
                audit.note(Finding::ExtentWithoutObject { ino, offset, object });
                return true;
            };
            if u64::from(object_offset).saturating_add(length) > seen.content_bytes {
                audit.note(Finding::ExtentBeyondObject { ino, offset, object });
            }
            seen.extents = seen.extents.saturating_add(length);
            seen.ino = Some(ino);
            true
        })
    }

    fn checksums(&mut self, window: Window, objects: &mut Objects) -> Result<(), NamespaceError> {
        let Walk { reader, audit, .. } = self;
        let mut nobody = None;
        reader.each(&window.start(CHECKSUMS), &window.end(CHECKSUMS), &mut |key, value| {
            let (Ok(KeyView::Checksums { object, list }), Ok(Checksums(crcs))) =
                (KeyView::decode(key), Checksums::decode(value))
            else {
                audit.note(Finding::Unreadable { key: key.to_vec() });
                return true;
            };
            match objects.get_mut(&object) {
                Some(seen) if usize::from(list.0) < seen.lists && crcs.len() == seen.cells => {
                    seen.right.insert(list);
                }
                Some(seen) if usize::from(list.0) >= seen.lists => {
                    audit.note(Finding::ChecksumList { object, ino: seen.ino, list });
                }
                // Not right: it is told with those that are missing.
                Some(_) => {}
                None if nobody.replace(object) != Some(object) => {
                    audit.note(Finding::ChecksumsOfNobody { object });
                }
                None => {}
            }
            true
        })
    }

    fn live_bytes(&mut self, window: Window, objects: &mut Objects) -> Result<(), NamespaceError> {
        let Walk { reader, audit, .. } = self;
        reader.each(&window.start(LIVE), &window.end(LIVE), &mut |key, value| {
            match (KeyView::decode(key), <[u8; 8]>::try_from(value)) {
                (Ok(KeyView::Live(object)), Ok(bytes)) => match objects.get_mut(&object) {
                    Some(seen) => seen.live = i64::from_le_bytes(bytes),
                    None => audit.note(Finding::LiveBytesOfNobody { object }),
                },
                _ => audit.note(Finding::Unreadable { key: key.to_vec() }),
            }
            true
        })
    }

    fn judge_object(&mut self, object: ObjectId, seen: &Seen) {
        let Seen { extents, ino, live: counter, .. } = *seen;
        if i64::try_from(extents) != Ok(counter) {
            self.audit.note(Finding::LiveBytes { object, ino, counter, extents });
        }
        if extents == 0 && !self.moment.in_flush.contains(&object) {
            self.audit.note(Finding::ObjectUnused { object });
        }
        for list in (0..seen.lists).map(|list| ShardIndex(list as u8)) {
            if !seen.right.contains(&list) {
                self.audit.note(Finding::ChecksumList { object, ino, list });
            }
        }
        for &(disk, unit) in &seen.outside {
            self.audit.note(Finding::ShardOutside { object, ino, disk, unit });
        }
    }
}

impl Seen {
    fn new(record: &ObjectRecord, areas: Option<&BTreeMap<DiskIndex, Units>>) -> Seen {
        let units = record.shard_units().0;
        let fits = |place: &crate::format::Place| {
            areas.is_none_or(|areas| {
                let end = place.offset.0.checked_add(units);
                areas.get(&place.disk).is_some_and(|area| end.is_some_and(|end| end <= area.0))
            })
        };
        let outside = record.places.iter().flatten().filter(|place| !fits(place));
        Seen {
            lists: checksum_lists(record),
            cells: record.cells(),
            content_bytes: u64::from(record.pieces_offset),
            extents: 0,
            ino: None,
            live: 0,
            right: BTreeSet::new(),
            outside: outside.map(|place| (place.disk, place.offset.0)).collect(),
        }
    }
}
