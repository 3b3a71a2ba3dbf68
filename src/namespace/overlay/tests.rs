//! The overlay against a plain byte map: every operation, then every byte compared.

use super::*;
use crate::base::Random;

/// What a byte of the file is, seen through the overlay alone.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Seen {
    Byte(u8),
    Zero,
    Below,
}

fn after(size: u64) -> After {
    After { size, ..After::default() }
}

fn look(overlay: &Overlay, end: u64) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (range, source) in overlay.sources(0..end) {
        assert_eq!(range.start, seen.len() as u64, "parts are in order and without gaps");
        let length = (range.end - range.start) as usize;
        match source {
            Source::Data(bytes) => {
                seen.extend(bytes.slice(length as u64).iter().map(|&byte| Seen::Byte(byte)));
            }
            Source::Stored(..) => unreachable!("no object in this test"),
            Source::Hole => seen.extend(std::iter::repeat_n(Seen::Zero, length)),
            Source::Below => seen.extend(std::iter::repeat_n(Seen::Below, length)),
        }
    }
    seen
}

#[test]
fn the_overlay_is_what_was_last_done_to_each_byte() {
    const END: u64 = 64;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut overlay = Overlay::default();
        let mut model = vec![Seen::Below; END as usize];
        for step in 0..60u8 {
            let start = random.below(END);
            let end = (start + 1 + random.below(12)).min(END);
            let range = start as usize..end as usize;
            match random.below(5) {
                0 | 1 => {
                    let bytes = vec![step; range.len()];
                    overlay.write(start, Arc::new(bytes.into()), after(END));
                    model[range].fill(Seen::Byte(step));
                }
                2 => {
                    overlay.write_logged(start, vec![step; range.len()], Lsn(1), after(END));
                    model[range].fill(Seen::Byte(step));
                }
                3 => {
                    overlay.punch(start..end, after(END));
                    model[range].fill(Seen::Zero);
                }
                _ => {
                    overlay.forget(start..end);
                    model[range].fill(Seen::Below);
                }
            }
            overlay.check_invariants();
            assert_eq!(look(&overlay, END), model, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn a_cut_removes_only_what_it_took() {
    let mut overlay = Overlay::default();
    overlay.write(0, Arc::new(vec![1; 10].into()), after(10));
    overlay.punch(20..30, after(10));
    let point = overlay.seq();
    overlay.write(5, Arc::new(vec![2; 10].into()), after(15));
    assert_eq!(overlay.snapshot(point).len(), 2);
    assert_eq!(overlay.after(point).map(|after| after.size), Some(10));
    assert_eq!(overlay.remove_through(point), 5);
    overlay.check_invariants();
    assert_eq!(look(&overlay, 15)[4..6], [Seen::Below, Seen::Byte(2)]);
    assert_eq!(overlay.data_bytes(), 10);
}

#[test]
fn appends_share_one_piece_unless_somebody_holds_it() {
    let mut overlay = Overlay::default();
    overlay.write(0, Arc::new(vec![1; 10].into()), after(10));
    overlay.write(10, Arc::new(vec![2; 10].into()), after(20));
    assert_eq!(overlay.len(), 1);
    let held = overlay.snapshot(overlay.seq());
    overlay.write(20, Arc::new(vec![3; 10].into()), after(30));
    assert_eq!(overlay.len(), 2);
    assert_eq!(held[0].1.length, 20);
}

#[test]
fn a_long_hole_ends_at_the_largest_offset() {
    let mut overlay = Overlay::default();
    overlay.write(0, Arc::new(vec![1; 10].into()), after(10));
    overlay.punch(4..u64::MAX, after(4));
    overlay.write(8, Arc::new(vec![2; 2].into()), after(10));
    overlay.check_invariants();
    let seen = look(&overlay, 12);
    assert_eq!(
        seen[3..9],
        [Seen::Byte(1), Seen::Zero, Seen::Zero, Seen::Zero, Seen::Zero, Seen::Byte(2)]
    );
    assert_eq!(seen[10..], [Seen::Zero, Seen::Zero]);
}

#[test]
fn a_flush_point_fills_whole_objects() {
    let mut overlay = Overlay::default();
    for part in 0..10u64 {
        let chunk = Arc::new(vec![0; APPEND_BYTES_MAX].into());
        overlay.write(part << 20, chunk, after((part + 1) << 20));
    }
    let point = overlay.flush_point(4 << 20);
    let bytes: u64 = overlay.snapshot(point).iter().map(|(_, piece)| piece.length).sum();
    assert_eq!(bytes, 8 << 20);
}
