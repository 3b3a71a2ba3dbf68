//! Sorted, disjoint, never touching runs of units: the free part of one allocation group.

/// `length` units from `start`, both inside one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) length: u32,
}

impl Run {
    pub(super) fn end(self) -> u32 {
        self.start + self.length
    }
}

/// A set of units as runs. Neighbours that touch are always merged, so that equal sets are equal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    /// One run from 0, or nothing if `length` is 0.
    pub(super) fn whole(length: u32) -> Runs {
        if length == 0 { Runs::default() } else { Runs(vec![Run { start: 0, length }]) }
    }

    pub(super) fn as_slice(&self) -> &[Run] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first run of at least `length`, ascending.
    pub(super) fn first_fit(&self, length: u32) -> Option<u32> {
        self.0.iter().find(|run| run.length >= length).map(|run| run.start)
    }

    /// True if all of the range is in the set.
    pub(super) fn contains(&self, start: u32, length: u32) -> bool {
        let at = self.0.partition_point(|run| run.end() <= start);
        self.0.get(at).is_some_and(|run| run.start <= start && start + length <= run.end())
    }

    /// True if any unit of the range is in the set.
    pub(super) fn touches(&self, start: u32, length: u32) -> bool {
        let at = self.0.partition_point(|run| run.end() <= start);
        self.0.get(at).is_some_and(|run| run.start < start + length)
    }

    /// Takes the range out. Panics if not all of it is there.
    pub(super) fn remove(&mut self, start: u32, length: u32) {
        assert!(length > 0 && self.contains(start, length), "only what is in the set is taken");
        let at = self.0.partition_point(|run| run.end() <= start);
        let run = self.0[at];
        let left = Run { start: run.start, length: start - run.start };
        let right = Run { start: start + length, length: run.end() - start - length };
        match (left.length > 0, right.length > 0) {
            (false, false) => {
                self.0.remove(at);
            }
            (true, false) => self.0[at] = left,
            (false, true) => self.0[at] = right,
            (true, true) => {
                self.0[at] = left;
                self.0.insert(at + 1, right);
            }
        }
    }

    /// Puts the range in. Panics if any of it was there: that would be a double free.
    pub(super) fn insert(&mut self, start: u32, length: u32) {
        assert!(length > 0 && !self.touches(start, length), "what is freed was not free");
        let at = self.0.partition_point(|run| run.end() <= start);
        let joins_left = at > 0 && self.0[at - 1].end() == start;
        let joins_right = self.0.get(at).is_some_and(|run| run.start == start + length);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].length += length + self.0[at].length;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].length += length,
            (false, true) => {
                self.0[at].start = start;
                self.0[at].length += length;
            }
            (false, false) => self.0.insert(at, Run { start, length }),
        }
    }

    /// What is not in the set, of `0..length`.
    pub(super) fn complement(&self, length: u32) -> Runs {
        let mut out = Vec::new();
        let mut next = 0;
        for run in &self.0 {
            if run.start > next {
                out.push(Run { start: next, length: run.start - next });
            }
            next = run.end();
        }
        if next < length {
            out.push(Run { start: next, length: length - next });
        }
        Runs(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;

    #[test]
    fn runs_behave_as_a_bitmap() {
        let mut random = Random::new(11);
        let mut runs = Runs::whole(64);
        let mut bits = [true; 64];
        for _ in 0..5000 {
            let start = random.below(64) as u32;
            let length = 1 + random.below(u64::from(64 - start)) as u32;
            let range = start as usize..(start + length) as usize;
            let all = bits[range.clone()].iter().all(|&bit| bit);
            let any = bits[range.clone()].iter().any(|&bit| bit);
            assert_eq!(runs.contains(start, length), all);
            assert_eq!(runs.touches(start, length), any);
            if all {
                runs.remove(start, length);
                bits[range].fill(false);
            } else if !any {
                runs.insert(start, length);
                bits[range].fill(true);
            }
            let mut copy = Vec::new();
            for run in runs.as_slice() {
                copy.extend(run.start..run.end());
            }
            let want: Vec<u32> = (0..64).filter(|&unit| bits[unit as usize]).collect();
            assert_eq!(copy, want);
            assert_eq!(runs.complement(64).complement(64), runs);
            let fit = (0..64u32).find(|&at| at + 5 <= 64 && runs.contains(at, 5));
            assert_eq!(runs.first_fit(5), fit);
        }
    }

    #[test]
    #[should_panic(expected = "was not free")]
    fn a_double_free_is_our_bug() {
        Runs::whole(8).insert(3, 1);
    }
}
