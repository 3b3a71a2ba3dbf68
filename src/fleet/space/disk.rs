//! Free space of one disk: allocation groups, each serving one size class [R22].
//!
//! RAM is spent on touched groups only: a group that is wholly free is a bit, a group that is wholly
//! used is an empty run list. A place may run over the end of its group into the next one, if that
//! serves the same class or is free; so small disks, whose groups are small, waste nothing.
//!
//! A unit is in one of four states:
//!
//! ```text
//! free ──reserve──> held ──put──> held + used ──reservation dropped──> used ──delete──> free
//!                                                                       └─pinned, frozen─> held ──> free
//! ```
//!
//! Only `free` is stored as runs; `held` is a small table of places (in flight, pinned or frozen);
//! `used`, which is what a snapshot says [R18], is the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::runs::{Run, Runs};
use super::{RUN_UNITS_LEAST, SizeClass, Stream};
use crate::base::canary::{self, Bug};
use crate::base::{DiskIndex, Units};
use crate::format::{GroupState, space_snapshot};

/// One in so many groups is kept for tables, at least one [R22].
const TABLES_SHARE: u32 = 64;

/// A place that is not allocatable for a reason besides being used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hold {
    units: u64,
    /// Reservations, pins' and recovery's deferred frees.
    count: u32,
    /// A committed object lives there.
    used: bool,
}

#[derive(Clone, Debug)]
struct Group {
    class: SizeClass,
    free: Runs,
}

/// One disk's groups. Units are counted from the start of its data area.
#[derive(Debug)]
pub(super) struct DiskSpace {
    units: u64,
    group_units: u32,
    groups: BTreeMap<u32, Group>,
    /// Groups of each class that have free units.
    open: [BTreeSet<u32>; SizeClass::COUNT],
    /// Where each class allocated last.
    cursor: [u32; SizeClass::COUNT],
    /// A size known not to fit into the groups of this class, until something is freed.
    no_fit: [u64; SizeClass::COUNT],
    /// A size known not to fit anywhere, until something is freed; and one where tables' room is left.
    no_fit_anywhere: u64,
    no_fit_beside_tables: u64,
    /// Free units of the groups that serve tables.
    table_units: u64,
    holds: HashMap<u64, Hold>,
    free_units: u64,
    /// Those of them in runs too short for a shard of a large file.
    short_units: u64,
    used_units: u64,
    /// Groups whose used units changed since the last snapshot that took effect.
    dirty: BTreeSet<u32>,
    /// Those named in snapshots that have not taken effect yet: by the number of the last such one.
    in_snapshot: BTreeMap<u32, u64>,
}

impl DiskSpace {
    /// A disk whose data area is all free.
    pub(super) fn new(units: Units, group_units: Units) -> DiskSpace {
        assert!(group_units.0 > 0 && group_units.0 <= u64::from(u32::MAX), "groups are 32-bit");
        assert!(units.0.div_ceil(group_units.0) <= u64::from(u32::MAX), "group numbers are 32-bit");
        // Only the last group may be that small.
        let last = Runs::whole((units.0 % group_units.0) as u32);
        DiskSpace {
            units: units.0,
            group_units: group_units.0 as u32,
            groups: BTreeMap::new(),
            open: Default::default(),
            cursor: [0; SizeClass::COUNT],
            no_fit: [u64::MAX; SizeClass::COUNT],
            no_fit_anywhere: u64::MAX,
            no_fit_beside_tables: u64::MAX,
            table_units: 0,
            holds: HashMap::new(),
            free_units: units.0,
            short_units: short(&last),
            used_units: 0,
            dirty: BTreeSet::new(),
            in_snapshot: BTreeMap::new(),
        }
    }

    pub(super) fn units(&self) -> u64 {
        self.units
    }

    pub(super) fn free_units(&self) -> u64 {
        self.free_units
    }

    pub(super) fn short_units(&self) -> u64 {
        self.short_units
    }

    pub(super) fn used_units(&self) -> u64 {
        self.used_units
    }

    fn group_count(&self) -> u32 {
        self.units.div_ceil(u64::from(self.group_units)) as u32
    }

    /// Units of a group: all have the same but the last.
    fn units_of(&self, group: u32) -> u32 {
        let start = u64::from(group) * u64::from(self.group_units);
        (self.units - start).min(u64::from(self.group_units)) as u32
    }

    fn group_of(&self, unit: u64) -> u32 {
        (unit / u64::from(self.group_units)) as u32
    }

    fn start_of(&self, group: u32) -> u64 {
        u64::from(group) * u64::from(self.group_units)
    }

    /// Finds room and holds it once. None if no run is long enough, or if only `tables_room` is left and
    /// is to be left.
    pub(super) fn reserve(
        &mut self,
        units: u64,
        class: SizeClass,
        leave_tables_room: bool,
    ) -> Option<u64> {
        assert!(units > 0, "a place has at least its header unit");
        let start = if leave_tables_room && class != SizeClass::Table {
            self.find_beside_tables(units, class)?
        } else {
            self.find(units, class)?
        };
        self.take(start, units, class);
        self.cursor[class.index()] = self.group_of(start);
        let old = self.holds.insert(start, Hold { units, count: 1, used: false });
        assert!(old.is_none(), "what was free was not held");
        Some(start)
    }

    /// [R22] What is free in groups that are wholly free or serve tables: so many groups' worth is kept
    /// from data, which would else cut the last long runs to pieces, and no checkpoint could be written
    /// any more.
    fn has_tables_room(&self) -> bool {
        let free = u64::from(self.group_count() - self.groups.len() as u32);
        let kept = u64::from((self.group_count() / TABLES_SHARE).max(1));
        let group_units = u64::from(self.group_units);
        free * group_units + self.table_units > kept * group_units
    }

    /// As `find`, but leaves the tables their room.
    fn find_beside_tables(&mut self, units: u64, class: SizeClass) -> Option<u64> {
        if units > self.free_units || units >= self.no_fit_beside_tables {
            return None;
        }
        let tables_room = self.has_tables_room();
        let found = self.find_in_class(units, class, tables_room);
        let found =
            found.or_else(|| tables_room.then(|| self.find_free_group(units, class)).flatten());
        let found = found.or_else(|| {
            let groups = self.groups.iter().filter(|(_, group)| group.class != SizeClass::Table);
            groups.map(|(&group, _)| group).find_map(|group| self.fit_inside(group, units))
        });
        if found.is_none() {
            self.no_fit_beside_tables = units;
        }
        found
    }

    /// 1. a group of the class, from the open one on, then from the first; 2. the first free group;
    /// 3. any hole at all.
    fn find(&mut self, units: u64, class: SizeClass) -> Option<u64> {
        if units > self.free_units || units >= self.no_fit_anywhere {
            return None;
        }
        let found = self.find_in_class(units, class, true);
        let found = found.or_else(|| self.find_free_group(units, class));
        let found =
            found.or_else(|| self.groups.keys().find_map(|&group| self.fit_in(group, units, None)));
        if found.is_none() {
            self.no_fit_anywhere = units;
        }
        found
    }

    /// `may_grow`: a run may go on into a group that is free.
    fn find_in_class(&mut self, units: u64, class: SizeClass, may_grow: bool) -> Option<u64> {
        let index = class.index();
        if units < self.no_fit[index] {
            let cursor = self.cursor[index];
            let from = self.open[index].range(cursor..).chain(self.open[index].range(..cursor));
            for &group in from {
                let fit = if may_grow {
                    self.fit_in(group, units, Some(class))
                } else {
                    self.fit_inside(group, units)
                };
                if fit.is_some() {
                    return fit;
                }
            }
            if may_grow {
                self.no_fit[index] = units;
            }
        }
        None
    }

    fn find_free_group(&self, units: u64, class: SizeClass) -> Option<u64> {
        let mut next = 0;
        for group in self.groups.keys().copied().chain([self.group_count()]) {
            for free in next..group {
                if self.length_from(free, 0, units, Some(class)) >= units {
                    return Some(self.start_of(free));
                }
                // Only the tail of a stretch of free groups can fail, so this ends soon.
            }
            next = group + 1;
        }
        None
    }

    /// A run of `units` inside this touched group.
    fn fit_inside(&self, group: u32, units: u64) -> Option<u64> {
        let fit = self.groups.get(&group)?.free.first_fit(u32::try_from(units).ok()?)?;
        Some(self.start_of(group) + u64::from(fit))
    }

    /// A run of `units` that begins in this touched group and may go on into groups of the same
    /// class or free ones (`class` None: into any).
    fn fit_in(&self, group: u32, units: u64, class: Option<SizeClass>) -> Option<u64> {
        let free = &self.groups.get(&group)?.free;
        let fit = u32::try_from(units).ok().and_then(|units| free.first_fit(units));
        if let Some(start) = fit {
            return Some(self.start_of(group) + u64::from(start));
        }
        let last = free.as_slice().last()?;
        if last.end() == self.units_of(group)
            && self.length_from(group, last.start, units, class) >= units
        {
            return Some(self.start_of(group) + u64::from(last.start));
        }
        None
    }

    /// Free units in one stretch from `start` in `group`, counted up to `enough`.
    fn length_from(&self, group: u32, start: u32, enough: u64, class: Option<SizeClass>) -> u64 {
        let mut length = u64::from(self.units_of(group) - start);
        let mut next = group + 1;
        while length < enough && next < self.group_count() {
            let whole = self.units_of(next);
            match self.groups.get(&next) {
                None => length += u64::from(whole),
                Some(other) if class.is_none_or(|class| class == other.class) => {
                    let head = other.free.as_slice().first().filter(|run| run.start == 0);
                    let head = head.map_or(0, |run| run.length);
                    length += u64::from(head);
                    if head < whole {
                        break;
                    }
                }
                Some(_) => break,
            }
            next += 1;
        }
        length
    }

    /// The range, cut at group ends.
    fn pieces(&self, start: u64, units: u64) -> Vec<(u32, Run)> {
        let mut out = Vec::with_capacity(1);
        let (mut at, end) = (start, start + units);
        while at < end {
            let group = self.group_of(at);
            let stop = end.min(self.start_of(group) + u64::from(self.units_of(group)));
            let local = (at - self.start_of(group)) as u32;
            out.push((group, Run { start: local, length: (stop - at) as u32 }));
            at = stop;
        }
        out
    }

    fn take(&mut self, start: u64, units: u64, class: SizeClass) {
        for (index, run) in self.pieces(start, units) {
            let whole = self.units_of(index);
            let no_fit = &mut self.no_fit;
            let table_units = &mut self.table_units;
            let group = self.groups.entry(index).or_insert_with(|| {
                *table_units += u64::from(if class == SizeClass::Table { whole } else { 0 });
                no_fit[class.index()] = u64::MAX;
                Group { class, free: Runs::whole(whole) }
            });
            self.short_units -= short(&group.free);
            group.free.remove(run.start, run.length);
            if group.class == SizeClass::Table {
                self.table_units -= u64::from(run.length);
            }
            self.short_units += short(&group.free);
            let (label, empty) = (group.class.index(), group.free.is_empty());
            if empty {
                self.open[label].remove(&index);
            } else {
                self.open[label].insert(index);
            }
        }
        self.free_units -= units;
    }

    fn give(&mut self, start: u64, units: u64) {
        for (index, run) in self.pieces(start, units) {
            let whole = self.units_of(index);
            let group = self.groups.get_mut(&index).expect("a group with used units is kept");
            self.short_units -= short(&group.free);
            group.free.insert(run.start, run.length);
            if group.class == SizeClass::Table {
                self.table_units += u64::from(run.length);
            }
            self.short_units += short(&group.free);
            let label = group.class.index();
            if group.free.contains(0, whole) {
                if group.class == SizeClass::Table {
                    self.table_units -= u64::from(whole);
                }
                self.groups.remove(&index);
                self.open[label].remove(&index);
            } else {
                self.open[label].insert(index);
            }
        }
        self.no_fit = [u64::MAX; SizeClass::COUNT];
        self.no_fit_anywhere = u64::MAX;
        self.no_fit_beside_tables = u64::MAX;
        self.free_units += units;
        assert!(self.free_units + self.used_units <= self.units, "nothing is freed twice");
    }

    fn in_area(&self, start: u64, units: u64) -> bool {
        units > 0 && start.checked_add(units).is_some_and(|end| end <= self.units)
    }

    /// True if every unit of the range is allocatable.
    fn is_free(&self, start: u64, units: u64) -> bool {
        self.pieces(start, units).iter().all(|(index, run)| {
            self.groups.get(index).is_none_or(|group| group.free.contains(run.start, run.length))
        })
    }

    /// True if no unit of the range is allocatable.
    fn is_taken(&self, start: u64, units: u64) -> bool {
        self.pieces(start, units).iter().all(|(index, run)| {
            self.groups.get(index).is_some_and(|group| !group.free.touches(run.start, run.length))
        })
    }

    fn touch(&mut self, start: u64, units: u64) {
        for (index, _) in self.pieces(start, units) {
            self.dirty.insert(index);
        }
    }

    /// A committed object lives here from now on. False if that contradicts what is known: the
    /// range lies outside the disk, or another object has part of it.
    pub(super) fn commit(&mut self, start: u64, units: u64, class: SizeClass) -> bool {
        if !self.in_area(start, units) {
            return false;
        }
        if let Some(hold) = self.holds.get_mut(&start) {
            if hold.units != units {
                return false;
            }
            if !hold.used {
                hold.used = true;
                self.used_units += units;
                self.touch(start, units);
            }
            return true;
        }
        if self.is_free(start, units) {
            self.take(start, units, class);
            self.used_units += units;
            self.touch(start, units);
            return true;
        }
        // Put before: the same batch may be told twice.
        self.is_taken(start, units)
    }

    /// The object that lived here was deleted by a batch. The place is held once more, so that the
    /// caller decides when it becomes free: by `unhold`. False if nothing committed was there.
    pub(super) fn uncommit(&mut self, start: u64, units: u64) -> bool {
        if !self.in_area(start, units) || !self.is_taken(start, units) {
            return false;
        }
        match self.holds.get_mut(&start) {
            Some(hold) if hold.used && hold.units == units => {
                hold.used = false;
                hold.count += 1;
            }
            Some(_) => return false,
            None => {
                self.holds.insert(start, Hold { units, count: 1, used: false });
            }
        }
        self.used_units -= units;
        self.touch(start, units);
        true
    }

    /// Holds exactly this place, which must be free. False if it is not.
    pub(super) fn claim(&mut self, start: u64, units: u64, class: SizeClass) -> bool {
        if !self.in_area(start, units) || !self.is_free(start, units) {
            return false;
        }
        self.take(start, units, class);
        let old = self.holds.insert(start, Hold { units, count: 1, used: false });
        assert!(old.is_none(), "what was free was not held");
        true
    }

    /// Holds exactly this place, which nobody may hold; returns the runs of it that were in use. None if
    /// somebody holds part of it.
    pub(super) fn claim_over(
        &mut self,
        start: u64,
        units: u64,
        class: SizeClass,
    ) -> Option<Vec<(u64, u64)>> {
        if self.claim(start, units, class) {
            return Some(Vec::new());
        }
        if !self.in_area(start, units) || self.is_held_in(start, units) {
            return None;
        }
        let overlaps =
            |(&held, hold): (&u64, &Hold)| held < start + units && start < held + hold.units;
        if self.holds.iter().any(overlaps) {
            return None;
        }
        let mut used = Vec::new();
        let mut at = start;
        for (free, length) in self.hold_free(start, units) {
            self.holds.remove(&free);
            used.extend((at < free).then(|| (at, free - at)));
            at = free + length;
        }
        used.extend((at < start + units).then(|| (at, start + units - at)));
        for &(run, length) in &used {
            self.used_units -= length;
            self.touch(run, length);
        }
        self.holds.insert(start, Hold { units, count: 1, used: false });
        Some(used)
    }

    /// Holds whatever is free in this range; returns the places held.
    pub(super) fn hold_free(&mut self, start: u64, units: u64) -> Vec<(u64, u64)> {
        if !self.in_area(start, units) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (index, run) in self.pieces(start, units) {
            let base = self.start_of(index);
            let (from, to) = (run.start, run.start + run.length);
            match self.groups.get(&index) {
                None => found.push((base + u64::from(from), u64::from(run.length))),
                Some(group) => {
                    for free in group.free.as_slice() {
                        let (first, last) = (free.start.max(from), free.end().min(to));
                        if first < last {
                            found.push((base + u64::from(first), u64::from(last - first)));
                        }
                    }
                }
            }
        }
        for &(start, units) in &found {
            let held = self.claim(start, units, SizeClass::of(Units(units), Stream::Data));
            assert!(held, "the range is free");
        }
        found
    }

    /// True if some of this range is held and not used.
    pub(super) fn is_held_in(&self, start: u64, units: u64) -> bool {
        self.holds.iter().any(|(&held, hold)| {
            !hold.used && held < start.saturating_add(units) && start < held + hold.units
        })
    }

    /// Holds a held place once more.
    pub(super) fn hold_again(&mut self, start: u64) {
        self.holds.get_mut(&start).expect("the place is held").count += 1;
    }

    /// Units of a held place.
    pub(super) fn held_units(&self, start: u64) -> u64 {
        self.holds.get(&start).expect("the place is held").units
    }

    /// Ends one hold. True if that made the place free.
    pub(super) fn unhold(&mut self, start: u64) -> bool {
        let hold = self.holds.get_mut(&start).expect("a hold is ended once");
        hold.count -= 1;
        if hold.count > 0 {
            return false;
        }
        let hold = *hold;
        self.holds.remove(&start);
        if !hold.used {
            self.give(start, hold.units);
        }
        !hold.used
    }

    /// Used units per group: of the groups that changed since the last snapshot that took effect,
    /// or of all. [R18] What is only held is not in it. Numbers rise from snapshot to snapshot.
    pub(super) fn snapshot(
        &mut self,
        disk: DiskIndex,
        all: bool,
        number: u64,
        out: &mut Vec<GroupState>,
    ) {
        let changed = std::mem::take(&mut self.dirty);
        let in_flight = canary::planted(Bug::SnapshotInFlight);
        let held = if in_flight { Default::default() } else { self.held_runs() };
        let wanted: BTreeSet<u32> = if all {
            self.groups.keys().copied().collect()
        } else {
            changed.iter().chain(self.in_snapshot.keys()).copied().collect()
        };
        self.in_snapshot.extend(changed.into_iter().map(|index| (index, number)));
        for index in wanted {
            let class = self.groups.get(&index).map_or(0, |group| group.class as u8);
            let used = self.used_runs(index, &held);
            let as_saved = |run: &Run| space_snapshot::Run { start: run.start, units: run.length };
            let runs: Vec<space_snapshot::Run> = used.as_slice().iter().map(as_saved).collect();
            if !(all && runs.is_empty()) {
                let class = if runs.is_empty() { 0 } else { class };
                out.push(GroupState { disk, group: index, class, runs });
            }
        }
    }

    /// What is held and not used, by group.
    fn held_runs(&self) -> BTreeMap<u32, Vec<Run>> {
        let mut held: BTreeMap<u32, Vec<Run>> = BTreeMap::new();
        for (&start, hold) in self.holds.iter().filter(|(_, hold)| !hold.used) {
            for (index, run) in self.pieces(start, hold.units) {
                held.entry(index).or_default().push(run);
            }
        }
        held
    }

    /// Used units of one group. `held`: as from `held_runs`.
    fn used_runs(&self, index: u32, held: &BTreeMap<u32, Vec<Run>>) -> Runs {
        let whole = self.units_of(index);
        let mut unused = match self.groups.get(&index) {
            Some(group) => group.free.clone(),
            None => Runs::whole(whole),
        };
        for run in held.get(&index).into_iter().flatten() {
            unused.insert(run.start, run.length);
        }
        unused.complement(whole)
    }

    /// All used units as ranges that do not touch, ascending: what a snapshot of all groups says.
    pub(super) fn used(&self) -> Vec<std::ops::Range<u64>> {
        let held = self.held_runs();
        let mut used: Vec<std::ops::Range<u64>> = Vec::new();
        for &index in self.groups.keys() {
            let base = self.start_of(index);
            for run in self.used_runs(index, &held).as_slice() {
                let range = base + u64::from(run.start)..base + u64::from(run.end());
                match used.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => used.push(range),
                }
            }
        }
        used
    }

    /// Places that are held: where, how many units, and whether a committed object lives there.
    pub(super) fn held(&self) -> impl Iterator<Item = (u64, u64, bool)> {
        self.holds.iter().map(|(&start, hold)| (start, hold.units, hold.used))
    }

    /// The snapshot `number` took effect. What changed after it was taken is named again.
    pub(super) fn snapshot_kept(&mut self, number: u64) {
        self.in_snapshot.retain(|_, last| *last > number);
    }

    /// Takes over one group's used runs from a snapshot. Nothing may be held or used there yet, but
    /// by an older increment, which this one replaces. False if the runs make no sense.
    pub(super) fn load(&mut self, saved: &GroupState) -> bool {
        if saved.group >= self.group_count() || !self.holds.is_empty() {
            return false;
        }
        let whole = self.units_of(saved.group);
        let mut free = Runs::whole(whole);
        for &space_snapshot::Run { start, units } in &saved.runs {
            let inside = units > 0 && start.checked_add(units).is_some_and(|end| end <= whole);
            if !inside || !free.contains(start, units) {
                return false;
            }
            free.remove(start, units);
        }
        let old = self.groups.remove(&saved.group);
        self.short_units += short(&free);
        self.short_units -= short(old.as_ref().map_or(&Runs::whole(whole), |old| &old.free));
        if let Some(old) = old {
            let used: u64 = sum(&old.free.complement(whole));
            self.open[old.class.index()].remove(&saved.group);
            if old.class == SizeClass::Table {
                self.table_units -= sum(&old.free);
            }
            self.used_units -= used;
            self.free_units += used;
        }
        let used = u64::from(whole) - sum(&free);
        if used > 0 {
            let class = SizeClass::from_u8(saved.class).unwrap_or(SizeClass::Large);
            if !free.is_empty() {
                self.open[class.index()].insert(saved.group);
            }
            if class == SizeClass::Table {
                self.table_units += sum(&free);
            }
            self.groups.insert(saved.group, Group { class, free });
            self.used_units += used;
            self.free_units -= used;
        }
        true
    }

    /// Asserts what must hold between the fields.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let mut free = self.units;
        for (&index, group) in &self.groups {
            let whole = self.units_of(index);
            let group_free = sum(&group.free);
            assert!(group_free < u64::from(whole), "a free group costs nothing");
            free -= u64::from(whole) - group_free;
            for (class, open) in self.open.iter().enumerate() {
                let expected = class == group.class.index() && group_free > 0;
                assert_eq!(open.contains(&index), expected, "group {index} in list {class}");
            }
        }
        assert_eq!(free, self.free_units);
        let last = self.group_count() - 1;
        let last = (!self.groups.contains_key(&last)).then(|| Runs::whole(self.units_of(last)));
        let runs = self.groups.values().map(|group| &group.free).chain(last.as_ref());
        assert_eq!(runs.map(short).sum::<u64>(), self.short_units);
        let tables = self.groups.values().filter(|group| group.class == SizeClass::Table);
        assert_eq!(tables.map(|group| sum(&group.free)).sum::<u64>(), self.table_units);
        let held: u64 = self.holds.values().filter(|hold| !hold.used).map(|hold| hold.units).sum();
        assert_eq!(self.units, self.free_units + self.used_units + held);
        assert!(self.holds.values().all(|hold| hold.count > 0));
    }
}

fn sum(runs: &Runs) -> u64 {
    runs.as_slice().iter().map(|run| u64::from(run.length)).sum()
}

fn short(runs: &Runs) -> u64 {
    let runs = runs.as_slice().iter().map(|run| u64::from(run.length));
    runs.filter(|&length| length < RUN_UNITS_LEAST.0).sum()
}
