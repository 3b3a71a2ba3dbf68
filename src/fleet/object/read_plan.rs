//! Which cells of which shards to read. Pure: what is known of the shards in, accesses out.
//!
//! * A range that lies in few data shards is read from them, one access each (design 2).
//! * A range that needs all k data shards is read from the k shards of least cost: expected wait, and
//!   for parity one mean service time more (design 5.2).
//! * A replica is read where the wait is least (design 5.1).
//! * What a bad, missing or late shard should have given is rebuilt, column by column (a column is
//!   the cells with one number in all shards), from the k cheapest shards that are good there. Only
//!   the columns needed are read.
//!
//! Several cells of one shard are one contiguous access. The plan is made again whenever more is
//! known; what is at hand or on its way costs nothing.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// What is known of one shard.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ShardState {
    /// Expected wait of reading it; None if it cannot be read (missing, failed disk).
    pub(super) wait: Option<Duration>,
    /// Missed its deadline, or its disk hangs: only used when nothing else is left.
    pub(super) late: bool,
    /// Columns at hand, verified, or on their way (not late, unless late ones are waited for).
    pub(super) coming: Vec<Range<u32>>,
    /// Columns that were read and are bad.
    pub(super) bad: Vec<u32>,
}

impl ShardState {
    /// Whether this column could still be got from it.
    fn offers(&self, column: u32) -> bool {
        !self.bad.contains(&column) && (self.wait.is_some() || self.has(column))
    }

    fn has(&self, column: u32) -> bool {
        self.coming.iter().any(|range| range.contains(&column))
    }
}

/// Geometry of what is read.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Wanted {
    /// k; 1 for replicas.
    pub(super) data_shards: usize,
    /// Replicas: any shard gives the one column list.
    pub(super) replica: bool,
    /// Columns needed of each data shard (of shard 0 for replicas); empty where none.
    pub(super) columns: Vec<Range<u32>>,
    /// Mean service time of a shard: what parity costs more (design 5.2).
    pub(super) parity_cost: Duration,
}

/// One access: columns of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Access {
    pub(super) shard: usize,
    pub(super) columns: Range<u32>,
}

/// The object cannot be read: a column has too few good shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooFew {
    /// Shards good in the worst column.
    pub(super) have: usize,
}

/// Reads of at least this share (in percent) of k times the columns they span are made from any k.
const WHOLE_PERCENT: u64 = 75;

/// What is to be read now, besides what is coming. Late shards are used only if `late_too`.
pub(super) fn plan_read(
    wanted: &Wanted,
    shards: &[ShardState],
    late_too: bool,
) -> Result<Vec<Access>, TooFew> {
    let usable = |shard: usize, column: u32| {
        let state = &shards[shard];
        state.offers(column) && (late_too || !state.late || state.has(column))
    };
    let mut needed: Vec<Vec<u32>> = vec![Vec::new(); shards.len()];
    let rebuild = columns_to_rebuild(wanted, shards, &usable);
    for (shard, columns) in wanted.columns.iter().enumerate() {
        // Cells that are not rebuilt are read directly.
        for column in columns.clone().filter(|column| !rebuild.contains(column)) {
            needed[shard].push(column);
        }
    }
    let order = by_cost(wanted, shards);
    for &column in &rebuild {
        let mut chosen = 0;
        for &shard in &order {
            if chosen < wanted.data_shards && usable(shard, column) {
                needed[shard].push(column);
                chosen += 1;
            }
        }
        if chosen < wanted.data_shards {
            return Err(TooFew { have: chosen });
        }
    }
    Ok(accesses(shards, &needed))
}

/// Columns for which any k shards are read: those that a wanted shard cannot give, or all of them if
/// the read needs k shards anyway.
fn columns_to_rebuild(
    wanted: &Wanted,
    shards: &[ShardState],
    usable: &dyn Fn(usize, u32) -> bool,
) -> BTreeSet<u32> {
    let spans = wanted.columns.iter().filter(|columns| !columns.is_empty());
    let first = spans.clone().map(|columns| columns.start).min().unwrap_or(0);
    let last = spans.clone().map(|columns| columns.end).max().unwrap_or(0);
    let cells: u64 = spans.clone().map(|columns| columns.len() as u64).sum();
    let all = wanted.data_shards as u64 * u64::from(last - first);
    let whole = spans.count() == wanted.data_shards && cells * 100 >= all * WHOLE_PERCENT;
    if wanted.replica || (whole && wanted.data_shards < shards.len()) {
        return (first..last).collect();
    }
    (first..last)
        .filter(|column| {
            let mut asked = wanted.columns.iter().enumerate();
            asked.any(|(shard, columns)| columns.contains(column) && !usable(shard, *column))
        })
        .collect()
}

/// Shards, cheapest first. What is coming costs nothing; the order among equals is by number, so data
/// comes before parity.
fn by_cost(wanted: &Wanted, shards: &[ShardState]) -> Vec<usize> {
    let cost = |shard: usize| {
        let state = &shards[shard];
        let parity = !wanted.replica && shard >= wanted.data_shards;
        let extra = if parity { wanted.parity_cost } else { Duration::ZERO };
        match state.wait {
            _ if !state.coming.is_empty() && !state.late => (false, Duration::ZERO),
            Some(wait) => (state.late, wait.saturating_add(extra)),
            None => (state.late, Duration::MAX),
        }
    };
    let mut order: Vec<usize> = (0..shards.len()).collect();
    order.sort_by_key(|&shard| cost(shard));
    order
}

/// One access per shard, from the first needed column that is not coming to the last.
fn accesses(shards: &[ShardState], needed: &[Vec<u32>]) -> Vec<Access> {
    let mut out = Vec::new();
    for (shard, columns) in needed.iter().enumerate() {
        let missing = columns.iter().copied().filter(|&column| !shards[shard].has(column));
        let (first, last) = (missing.clone().min(), missing.max());
        if let (Some(first), Some(last)) = (first, last) {
            out.push(Access { shard, columns: first..last + 1 });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(waits: &[u64]) -> Vec<ShardState> {
        let state = |&wait| ShardState {
            wait: Some(Duration::from_millis(wait)),
            late: false,
            coming: Vec::new(),
            bad: Vec::new(),
        };
        waits.iter().map(state).collect()
    }

    fn wanted(columns: &[Range<u32>]) -> Wanted {
        Wanted {
            data_shards: columns.len(),
            replica: false,
            columns: columns.to_vec(),
            parity_cost: Duration::from_millis(20),
        }
    }

    fn shards_of(accesses: &[Access]) -> Vec<usize> {
        accesses.iter().map(|access| access.shard).collect()
    }

    #[test]
    fn a_small_read_is_one_access_of_one_shard() {
        let wanted = wanted(&[0..0, 7..8, 0..0, 0..0]);
        let plan = plan_read(&wanted, &ms(&[1, 900, 1, 1, 1, 1]), false);
        assert_eq!(plan, Ok(vec![Access { shard: 1, columns: 7..8 }]));
    }

    #[test]
    fn several_cells_of_one_shard_are_one_access() {
        let wanted = wanted(&[0..0, 5..64, 0..3, 0..0]);
        let plan = plan_read(&wanted, &ms(&[1; 6]), false).expect("all shards are good");
        let want = [Access { shard: 1, columns: 5..64 }, Access { shard: 2, columns: 0..3 }];
        assert_eq!(plan, want);
    }

    #[test]
    fn a_whole_object_comes_from_the_k_cheapest() {
        let wanted = wanted(&[0..64, 0..64, 0..64, 0..50]);
        let plan = |waits: &[u64]| {
            shards_of(&plan_read(&wanted, &ms(waits), false).expect("all shards are good"))
        };
        assert_eq!(plan(&[10, 10, 10, 10, 10, 10]), [0, 1, 2, 3], "parity costs more");
        assert_eq!(plan(&[10, 29, 10, 10, 10, 10]), [0, 1, 2, 3], "c is one service time");
        assert_eq!(plan(&[10, 31, 10, 10, 40, 10]), [0, 2, 3, 5]);
        assert_eq!(plan(&[99, 99, 10, 10, 10, 10]), [2, 3, 4, 5]);
    }

    #[test]
    fn r12_only_needed_cells_are_rebuilt_from_the_cheapest_others() {
        let wanted = wanted(&[0..0, 7..9, 0..0, 0..0]);
        let mut shards = ms(&[10, 10, 50, 10, 10, 10]);
        shards[1].wait = None;
        let plan = plan_read(&wanted, &shards, false).expect("five shards are good");
        assert_eq!(shards_of(&plan), [0, 3, 4, 5]);
        assert!(plan.iter().all(|access| access.columns == (7..9)));
        shards[0].wait = None;
        shards[3].wait = None;
        assert_eq!(plan_read(&wanted, &shards, false), Err(TooFew { have: 3 }));
    }

    #[test]
    fn one_bad_cell_asks_one_more_shard_for_that_cell() {
        let wanted = wanted(&[0..8, 0..8, 0..8, 0..8]);
        let mut shards = ms(&[10; 6]);
        for shard in &mut shards[..4] {
            shard.coming.push(0..8);
        }
        shards[2].bad.push(3);
        let plan = plan_read(&wanted, &shards, false);
        assert_eq!(plan, Ok(vec![Access { shard: 4, columns: 3..4 }]));
        // Every shard may have a bad cell, each in another column.
        for (column, shard) in shards.iter_mut().enumerate() {
            shard.bad = vec![column as u32];
        }
        let plan = plan_read(&wanted, &shards, false).expect("each column has five good cells");
        assert_eq!(plan, [Access { shard: 4, columns: 0..4 }]);
    }

    #[test]
    fn late_shards_are_the_last_resort() {
        let wanted = wanted(&[0..1, 0..0, 0..0]);
        let mut shards = ms(&[10; 4]);
        shards[0].late = true;
        let plan = plan_read(&wanted, &shards, false).expect("three are not late");
        assert_eq!(shards_of(&plan), [1, 2, 3]);
        shards[1].wait = None;
        assert!(plan_read(&wanted, &shards, false).is_err());
        let plan = plan_read(&wanted, &shards, true).expect("one may be waited for");
        assert_eq!(shards_of(&plan), [0]);
    }

    #[test]
    fn a_replica_is_read_where_the_wait_is_least() {
        let mut wanted = wanted(std::slice::from_ref(&(3..6)));
        wanted.replica = true;
        let mut shards = ms(&[30, 10, 20]);
        let one = |shard, columns| Ok(vec![Access { shard, columns }]);
        assert_eq!(plan_read(&wanted, &shards, false), one(1, 3..6));
        shards[1].coming.push(3..6);
        shards[1].bad.push(4);
        assert_eq!(plan_read(&wanted, &shards, false), one(2, 4..5));
    }
}
