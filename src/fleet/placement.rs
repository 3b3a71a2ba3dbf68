//! Which disks an object goes to. Pure: candidates and a random stream in, disks out (design 5.6).
//!
//! Distinct disks, drawn with probability proportional to free space: disk i is in with probability
//! `min(1, n * w_i / sum(w))`, by systematic sampling over a shuffled list. Of two draws the one with
//! the lower largest expected wait is kept. Every object has another set of disks, so a rebuild
//! reads from and writes to all of them.
//!
//! * Failing disks are used only where the others do not suffice.
//! * [R24] At most `per_enclosure` shards share a labelled enclosure, where that is possible at all;
//!   else as few as possible.

use std::time::Duration;

use crate::base::{DiskIndex, Random};

/// A disk with room for one shard.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Candidate {
    /// Which.
    pub disk: DiskIndex,
    /// Its free units at the level of the request, > 0: the weight.
    pub free_units: u64,
    /// Expected wait of one more shard.
    pub wait: Duration,
    /// Members with one label share a fate.
    pub enclosure: Option<u16>,
    /// About to fail.
    pub failing: bool,
}

/// Draws `count` distinct disks, in random order. None if there are fewer candidates.
pub fn place(
    candidates: &[Candidate],
    count: usize,
    per_enclosure: usize,
    random: &mut Random,
) -> Option<Vec<DiskIndex>> {
    if count == 0 || candidates.len() < count {
        return None;
    }
    let sound: Vec<Candidate> = candidates.iter().filter(|one| !one.failing).copied().collect();
    let pool = if sound.len() >= count { sound } else { candidates.to_vec() };
    let mut cap = per_enclosure.max(1);
    let mut best: Option<Vec<Candidate>> = None;
    while best.is_none() {
        for _ in 0..2 {
            let draw = draw(&pool, count, cap, random);
            let better = |old: &Vec<Candidate>| draw.iter().all(|new| worst(new) < worst(old));
            if draw.is_some() && best.as_ref().is_none_or(better) {
                best = draw;
            }
        }
        // Fewer enclosures than it takes: share them as evenly as they allow.
        cap += 1;
    }
    let mut disks: Vec<DiskIndex> = best?.iter().map(|one| one.disk).collect();
    shuffle(&mut disks, random);
    Some(disks)
}

fn worst(draw: &[Candidate]) -> Duration {
    draw.iter().map(|one| one.wait).max().unwrap_or_default()
}

/// One draw; None if it cannot keep to the cap.
fn draw(
    pool: &[Candidate],
    count: usize,
    cap: usize,
    random: &mut Random,
) -> Option<Vec<Candidate>> {
    let mut order = pool.to_vec();
    shuffle(&mut order, random);
    let weights: Vec<u64> = order.iter().map(|one| one.free_units.max(1)).collect();
    let inclusion = inclusion_probabilities(&weights, count);
    let mut drawn = Vec::with_capacity(count);
    let mut rest = Vec::new();
    let (mut sum, mut next) = (0.0, random.unit());
    for (one, probability) in order.iter().zip(inclusion) {
        sum += probability;
        // Rounding may leave the sum a hair below `count`: what was certain stays certain.
        if drawn.len() < count && (sum > next || probability >= 1.0) {
            drawn.push(*one);
            next += 1.0;
        } else {
            rest.push(*one);
        }
    }
    // Those beyond an enclosure's cap give way to others, heaviest first.
    let mut kept: Vec<Candidate> = Vec::with_capacity(count);
    rest.sort_by_key(|one| std::cmp::Reverse(one.free_units));
    for one in drawn.into_iter().chain(rest) {
        let shares =
            |other: &&Candidate| one.enclosure.is_some() && other.enclosure == one.enclosure;
        if kept.len() < count && kept.iter().filter(shares).count() < cap {
            kept.push(one);
        }
    }
    (kept.len() == count).then_some(kept)
}

/// `min(1, n * w_i / sum(w))`, the certain ones taken out and the rest scaled until it holds for all.
/// The sum is `count`.
pub fn inclusion_probabilities(weights: &[u64], count: usize) -> Vec<f64> {
    assert!(count <= weights.len(), "no more can be included than there are");
    let mut probabilities = vec![0.0; weights.len()];
    let mut certain = vec![false; weights.len()];
    loop {
        let left = count - certain.iter().filter(|&&sure| sure).count();
        let sum: f64 =
            weights.iter().zip(&certain).filter(|(_, sure)| !**sure).map(|(w, _)| *w as f64).sum();
        let mut changed = false;
        for index in 0..weights.len() {
            if certain[index] {
                probabilities[index] = 1.0;
                continue;
            }
            let share = if sum > 0.0 { left as f64 * weights[index] as f64 / sum } else { 0.0 };
            probabilities[index] = share.min(1.0);
            if share >= 1.0 && left > 0 {
                certain[index] = true;
                changed = true;
            }
        }
        if !changed {
            return probabilities;
        }
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u64]) -> Vec<Candidate> {
        let one = |(index, &free_units)| Candidate {
            disk: DiskIndex(index as u16),
            free_units,
            wait: Duration::from_millis(10),
            enclosure: None,
            failing: false,
        };
        weights.iter().enumerate().map(one).collect()
    }

    fn shares(candidates: &[Candidate], count: usize, cap: usize) -> Vec<f64> {
        let mut random = Random::new(9);
        let mut hits = vec![0.0; candidates.len()];
        let draws = 20_000;
        for _ in 0..draws {
            let disks = place(candidates, count, cap, &mut random).expect("there are enough");
            let mut sorted = disks.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), count, "distinct disks");
            disks.iter().for_each(|disk| hits[disk.as_usize()] += 1.0 / f64::from(draws));
        }
        hits
    }

    #[test]
    fn inclusion_is_capped_and_sums_up() {
        let p = inclusion_probabilities(&[100, 10, 10, 10, 10], 3);
        assert_eq!(p, [1.0, 0.5, 0.5, 0.5, 0.5]);
        let p = inclusion_probabilities(&[1, 1, 1], 3);
        assert_eq!(p, [1.0, 1.0, 1.0]);
        let p = inclusion_probabilities(&[400, 300, 200, 100], 2);
        assert!((p.iter().sum::<f64>() - 2.0).abs() < 1e-9);
        assert!((p[3] - 0.2).abs() < 1e-9);
    }

    #[test]
    fn disks_fill_in_proportion_to_their_free_space() {
        let weights = [400, 300, 200, 100, 100, 100];
        let hits = shares(&candidates(&weights), 3, 9);
        for (index, want) in inclusion_probabilities(&weights, 3).iter().enumerate() {
            assert!((hits[index] - want).abs() < 0.02, "disk {index}: {} for {want}", hits[index]);
        }
    }

    #[test]
    fn a_busy_disk_is_drawn_less_often() {
        let mut list = candidates(&[100; 8]);
        list[2].wait = Duration::from_secs(1);
        let hits = shares(&list, 4, 9);
        assert!(hits[2] < 0.3, "of two draws the one without it is kept: {}", hits[2]);
        list[2].failing = true;
        assert!(shares(&list, 4, 9)[2] == 0.0);
        assert!(shares(&list, 8, 9)[2] > 0.999, "used where the others do not suffice");
    }

    #[test]
    fn r24_enclosures_are_capped_where_possible() {
        let mut list = candidates(&[100, 100, 100, 900, 900, 900, 900]);
        for one in &mut list {
            one.enclosure = Some(u16::from(one.free_units == 900));
        }
        let mut random = Random::new(2);
        for _ in 0..1000 {
            let disks = place(&list, 5, 3, &mut random).expect("there are enough");
            assert!(disks.iter().filter(|disk| disk.0 >= 3).count() <= 3);
            let crowded = place(&list, 6, 2, &mut random).expect("shared where it must be");
            assert!(crowded.iter().filter(|disk| disk.0 >= 3).count() == 3);
        }
        assert!(place(&list, 8, 9, &mut random).is_none());
    }
}
