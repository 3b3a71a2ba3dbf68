//! What to compact next: pure decisions over the shape of the tree.
//!
//! 1. Level 0 counts as full at `level_0_runs` runs. They are merged into level 1; or, while they are
//!    small against what level 1 holds there, into one run of level 0, so that a trickle of small
//!    flushes does not rewrite level 1 again and again.
//! 2. A deeper level is full at `level_bytes * 10^(level - 1)`; one table of it, the next in turn, is
//!    merged into the level below.
//! 3. Else a table of which half is deletes: it is merged downwards, or rewritten where nothing lies
//!    below it. Either way the deletes sink, and end.
//!
//! 4. Before all that, a table that lacks a copy is written again, where it is.
//!
//! The fullest level goes first.

use super::IndexOptions;
use super::tree::{Run, Table, Tree};
use crate::base::ObjectId;
use crate::base::limits::INDEX_WORK_BYTES;
use crate::base::sync::Arc;
use crate::format::table::{LEVEL_MAX, PART_BYTES_MAX, TABLE_BYTES_MAX};

/// Runs merged at once, at most: each holds a piece in memory while it is read.
const RUNS_MAX: usize = 8;

const _: () = {
    let pieces = (RUNS_MAX as u64 + 1) * PART_BYTES_MAX as u64;
    // One table of the compactor and one of the flusher.
    assert!(pieces + 2 * TABLE_BYTES_MAX as u64 <= INDEX_WORK_BYTES, "R27");
};

/// Deletes in a table that make it worth a compaction of its own, at least.
const TOMBSTONES_MIN: u64 = 64;

/// Tables to merge.
#[derive(Debug)]
pub(super) struct Plan {
    /// From new to old.
    pub(super) inputs: Vec<Arc<Run>>,
    /// Where the outcome goes.
    pub(super) level: u8,
    /// On level 0: the number of the outcome's run, else 0.
    pub(super) run: u64,
    /// Rewrite every table, even where one could be moved as it is.
    pub(super) rewrite: bool,
    /// The one table that is only written again, if it is that.
    pub(super) refreshed: Option<ObjectId>,
}

/// The next thing to do, if any. `turns` remembers, per level, the last key that was compacted.
pub(super) fn plan(tree: &Tree, options: &IndexOptions, turns: &mut Turns) -> Option<Plan> {
    let fullness = |level: u8| match tree.level(level) {
        Some(run) if level < LEVEL_MAX => {
            run.bytes() as f64 / (options.level_bytes as f64 * 10f64.powi(i32::from(level) - 1))
        }
        _ => 0.0,
    };
    let level_0 = tree.level_0_runs() as f64 / options.level_0_runs as f64;
    let (level, fullest) = (1..=LEVEL_MAX)
        .map(|level| (level, fullness(level)))
        .fold((0, level_0), |best, next| if next.1 > best.1 { next } else { best });
    if fullest < 1.0 {
        return plan_tombstones(tree);
    }
    if level == 0 {
        return Some(plan_level_0(tree, options));
    }
    let run = tree.level(level)?;
    let turn = &mut turns.0[usize::from(level)];
    let next = run.tables.partition_point(|table| *table.meta.first_key <= turn[..]);
    let table = run.tables.get(next).unwrap_or(&run.tables[0]);
    *turn = table.meta.first_key.to_vec();
    Some(plan_table(tree, level, table, false))
}

/// Where each level's next turn begins.
#[derive(Debug)]
pub(super) struct Turns([Vec<u8>; LEVEL_MAX as usize + 1]);

impl Default for Turns {
    fn default() -> Turns {
        Turns([const { Vec::new() }; LEVEL_MAX as usize + 1])
    }
}

/// A table that lacks a copy, to be written again as it is.
pub(super) fn plan_refresh(tree: &Tree, lacks: &dyn Fn(&Table) -> bool) -> Option<Plan> {
    let all = tree.runs.iter().flat_map(|run| run.tables.iter().map(move |table| (run, table)));
    let (run, table) = all.into_iter().find(|(_, table)| lacks(table))?;
    let (level, number) = (run.level, run.number);
    let only = Run { level, number, tables: vec![table.clone()] };
    let refreshed = Some(table.record.id);
    Some(Plan { inputs: vec![Arc::new(only)], level, run: number, rewrite: true, refreshed })
}

fn plan_level_0(tree: &Tree, options: &IndexOptions) -> Plan {
    let runs = &tree.runs[..tree.level_0_runs()];
    // The oldest ones: what is newer stays above the outcome.
    let mut inputs = runs[runs.len().saturating_sub(RUNS_MAX)..].to_vec();
    let bytes: u64 = inputs.iter().map(|run| run.bytes()).sum();
    let below = tree.level(1).and_then(|run| overlap(run, &inputs));
    let below_bytes = below.as_ref().map_or(0, |run| run.bytes());
    if inputs.len() > 1 && bytes < options.memtable_bytes && bytes.saturating_mul(4) < below_bytes {
        let number = inputs[0].number;
        return Plan { inputs, level: 0, run: number, rewrite: true, refreshed: None };
    }
    inputs.extend(below);
    Plan { inputs, level: 1, run: 0, rewrite: false, refreshed: None }
}

fn plan_table(tree: &Tree, level: u8, table: &Arc<Table>, rewrite: bool) -> Plan {
    let only = Run { level, number: 0, tables: vec![table.clone()] };
    let mut inputs = vec![Arc::new(only)];
    let below = tree.level(level + 1).and_then(|run| overlap(run, &inputs));
    inputs.extend(below);
    Plan { inputs, level: level + 1, run: 0, rewrite, refreshed: None }
}

fn plan_tombstones(tree: &Tree) -> Option<Plan> {
    let dense = |table: &Arc<Table>| {
        let meta = &table.meta;
        meta.tombstones >= TOMBSTONES_MIN && meta.tombstones * 2 >= meta.entries
    };
    let deep = tree.runs.iter().filter(|run| run.level > 0);
    let (run, table) = deep
        .flat_map(|run| run.tables.iter().map(move |table| (run, table)))
        .find(|(_, table)| dense(table))?;
    let mut plan = plan_table_within(tree, run.level, table);
    plan.rewrite = true;
    Some(plan)
}

/// Merges a table into the next level that has something in its range; into its own if none has.
fn plan_table_within(tree: &Tree, level: u8, table: &Arc<Table>) -> Plan {
    let only = [Arc::new(Run { level, number: 0, tables: vec![table.clone()] })];
    let nothing_below =
        tree.runs.iter().filter(|run| run.level > level).all(|run| overlap(run, &only).is_none());
    if nothing_below || level == LEVEL_MAX {
        return Plan { inputs: only.to_vec(), level, run: 0, rewrite: true, refreshed: None };
    }
    plan_table(tree, level, table, true)
}

/// The tables of `run` that overlap the range of `inputs`.
fn overlap(run: &Arc<Run>, inputs: &[Arc<Run>]) -> Option<Arc<Run>> {
    let first = inputs.iter().map(|run| &run.tables[0].meta.first_key).min()?;
    let last = inputs.iter().filter_map(|run| Some(&run.tables.last()?.meta.last_key)).max()?;
    let start = run.first_ending_at(first);
    let end = run.tables.partition_point(|table| table.meta.first_key <= *last);
    let tables = run.tables.get(start..end).filter(|tables| !tables.is_empty())?.to_vec();
    Some(Arc::new(Run { level: run.level, number: run.number, tables }))
}
