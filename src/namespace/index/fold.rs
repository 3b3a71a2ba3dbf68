//! What several entries of one key amount to: the newest `Put` or `Delete` decides, and every `Add`
//! above it counts.

use super::{Op, Value};

/// The counter in a value; one of another length counts as 0.
pub(super) fn counter(value: &[u8]) -> i64 {
    value.try_into().map_or(0, i64::from_le_bytes)
}

/// A counter as a value.
pub(super) fn counter_value(sum: i64) -> Value {
    sum.to_le_bytes().to_vec()
}

/// Is fed the entries of one key, newest first, until it knows the answer.
#[derive(Default)]
pub(super) struct Fold {
    delta: Option<i64>,
}

impl Fold {
    /// Takes the next older entry. Some with the answer if no older one matters.
    pub(super) fn feed(&mut self, op: Op<'_>) -> Option<Option<Value>> {
        match (op, self.delta) {
            (Op::Put(value), None) => Some(Some(value.to_vec())),
            (Op::Put(value), Some(delta)) => {
                Some(Some(counter_value(counter(value).wrapping_add(delta))))
            }
            (Op::Delete, delta) => Some(delta.map(counter_value)),
            (Op::Add(more), delta) => {
                self.delta = Some(delta.unwrap_or(0).wrapping_add(more));
                None
            }
        }
    }

    /// The answer when there is no older entry.
    pub(super) fn finish(self) -> Option<Value> {
        self.delta.map(counter_value)
    }
}

/// An operation that owns its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum OwnedOp {
    Put(Box<[u8]>),
    Delete,
    Add(i64),
}

impl OwnedOp {
    pub(super) fn new(op: Op<'_>) -> OwnedOp {
        match op {
            Op::Put(value) => OwnedOp::Put(value.into()),
            Op::Delete => OwnedOp::Delete,
            Op::Add(delta) => OwnedOp::Add(delta),
        }
    }

    pub(super) fn view(&self) -> Op<'_> {
        match self {
            OwnedOp::Put(value) => Op::Put(value),
            OwnedOp::Delete => Op::Delete,
            OwnedOp::Add(delta) => Op::Add(*delta),
        }
    }

    /// What `self` and then the `newer` operation amount to, in one.
    pub(super) fn then(&self, newer: Op<'_>) -> OwnedOp {
        let Op::Add(delta) = newer else {
            return OwnedOp::new(newer);
        };
        match self {
            OwnedOp::Put(value) => {
                OwnedOp::Put(counter(value).wrapping_add(delta).to_le_bytes().into())
            }
            OwnedOp::Delete => OwnedOp::Put(delta.to_le_bytes().into()),
            OwnedOp::Add(older) => OwnedOp::Add(older.wrapping_add(delta)),
        }
    }

    /// Bytes outside the operation itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            OwnedOp::Put(value) => value.len() + 16,
            OwnedOp::Delete | OwnedOp::Add(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(newest_first: &[Op<'_>]) -> Option<Value> {
        let mut fold = Fold::default();
        for &op in newest_first {
            if let Some(answer) = fold.feed(op) {
                return answer;
            }
        }
        fold.finish()
    }

    #[test]
    fn adds_sum_up_down_to_a_put_or_a_delete() {
        let five = 5i64.to_le_bytes();
        assert_eq!(fold(&[]), None);
        assert_eq!(fold(&[Op::Add(2), Op::Add(3)]), Some(counter_value(5)));
        assert_eq!(fold(&[Op::Add(-2), Op::Put(&five), Op::Add(100)]), Some(counter_value(3)));
        assert_eq!(fold(&[Op::Add(2), Op::Delete, Op::Put(&five)]), Some(counter_value(2)));
        assert_eq!(fold(&[Op::Delete, Op::Put(&five)]), None);
        assert_eq!(fold(&[Op::Put(b"x"), Op::Add(1)]), Some(b"x".to_vec()));
        assert_eq!(fold(&[Op::Add(1), Op::Put(b"x")]), Some(counter_value(1)));
    }

    #[test]
    fn joining_two_operations_changes_no_answer() {
        let five = 5i64.to_le_bytes();
        let ops = [Op::Put(&five), Op::Put(b"x"), Op::Delete, Op::Add(7)];
        for base in ops {
            for older in ops {
                for newer in ops {
                    let joined = OwnedOp::new(older).then(newer);
                    assert_eq!(fold(&[joined.view(), base]), fold(&[newer, older, base]));
                }
            }
        }
    }
}
