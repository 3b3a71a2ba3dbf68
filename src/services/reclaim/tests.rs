//! What is worth it, what goes first, what goes together: the choices alone, without a pool.

use super::*;

fn room(available_bytes: u64) -> Room {
    Room { available_bytes, total_bytes: 1000, ..Room::default() }
}

fn victim(alive: u64, live_bytes: u64) -> Victim {
    Victim { alive, object: ObjectId(alive), live_bytes }
}

#[test]
fn the_less_room_there_is_the_more_is_worth_it() {
    let options = ReclaimOptions::default();
    let table = [(0, 90), (49, 90), (50, 75), (99, 75), (100, 50), (249, 50), (250, 25), (500, 12)];
    for (available, percent) in table {
        assert_eq!(worth(&room(available), false, &options), percent, "{available} of 1000");
        assert_eq!(worth(&room(available), true, &options), 90, "somebody would be refused");
    }
    assert_eq!(worth(&Room::default(), false, &options), 90, "a pool without disks has no room");
}

#[test]
fn the_sparsest_go_first_and_together_as_far_as_they_fit() {
    let mut victims: VecDeque<Victim> =
        [victim(0, 0), victim(100, 40), victim(300, 50), victim(400, 20), victim(600, 1)].into();
    assert_eq!(choose(&mut victims, 50, 100), [ObjectId(0), ObjectId(100), ObjectId(300)]);
    assert_eq!(choose(&mut victims, 50, 100), [ObjectId(400)]);
    assert_eq!(choose(&mut victims, 50, 100), [], "the rest is not worth it");
    let mut large: VecDeque<Victim> = [victim(500, 1000)].into();
    assert_eq!(choose(&mut large, 50, 100), [ObjectId(500)], "one always fits");
}

#[test]
fn a_survey_remembers_the_sparsest() {
    let mut victims = BinaryHeap::new();
    let forgot = [500, 100, 900, 300, 200].map(|alive| remember(&mut victims, victim(alive, 1), 3));
    assert_eq!(forgot, [false, false, false, true, true]);
    let sorted: Vec<u64> = victims.into_sorted_vec().iter().map(|victim| victim.alive).collect();
    assert_eq!(sorted, [100, 200, 300]);
}
