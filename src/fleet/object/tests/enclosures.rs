//! [R24] Shards of one object over enclosures.

use super::*;

/// Disks 0 to 2 in one enclosure, 3 to 5 in another, and so on.
fn in_threes(rig: &Rig) {
    for member in rig.members.all() {
        rig.members.set(Member { enclosure: Some(member.index.0 / 3 + 1), ..member });
    }
}

fn most_in_one_enclosure(record: &ObjectRecord) -> usize {
    let of: Vec<u16> = record.places.iter().flatten().map(|place| place.disk.0 / 3).collect();
    (0..4).map(|number| of.iter().filter(|&&one| one == number).count()).max().expect("four")
}

#[test]
fn r24_no_enclosure_has_more_than_m_shards_of_an_object() {
    let rig = rig(12, 12, ec(4, 2));
    in_threes(&rig);
    for seed in 0..40 {
        let stored = write_through(&rig, ec(4, 2), seed);
        assert!(most_in_one_enclosure(&stored.record) <= 2, "{:?}", stored.record.places);
        // As tables have it: m + 2 copies.
        let stored = write_through(&rig, Redundancy::Replica { copies: 4 }, seed);
        assert!(most_in_one_enclosure(&stored.record) <= 2, "{:?}", stored.record.places);
    }
}

#[test]
fn r24_a_late_shard_does_not_crowd_an_enclosure() {
    let mut moved = 0;
    for seed in 0..30 {
        let rig = rig(1300 + seed, 9, ec(4, 2));
        in_threes(&rig);
        let late = seed as usize % 9;
        rig.disks[late].set_hang(true);
        let stored = write_through(&rig, ec(4, 2), seed);
        moved +=
            usize::from(rig.reports().contains(&Report::DiskLate { disk: DiskIndex(late as u16) }));
        assert!(most_in_one_enclosure(&stored.record) <= 2, "{seed}: {:?}", stored.record.places);
    }
    assert!(moved > 10, "it was late in {moved} of 30");
}
