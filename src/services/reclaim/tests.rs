//! What is worth it, what goes first, what goes together: the choices alone, without a pool.

use super::*;

fn room(available_bytes: u64) -> Room {
    Room { available_bytes, total_bytes: 1000, ..Room::default() }
}

fn victim(density: u64, live_bytes: u64) -> Victim {
    Victim { density, object: ObjectId(density), live_bytes, age: AgeClass::Old }
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
    let sorted: Vec<u64> = victims.into_sorted_vec().iter().map(|victim| victim.density).collect();
    assert_eq!(sorted, [100, 200, 300]);
}

#[test]
fn the_younger_an_object_the_denser_it_counts() {
    let table = [(0, 1000, 0), (500, 1000, 500), (900, 1000, 900), (0, 500, 333), (500, 500, 714)];
    for (alive, age, density) in table {
        assert_eq!(weigh(alive, age), density, "{alive} alive, {age} old");
    }
    for alive in (0..=1200).step_by(100) {
        assert_eq!(weigh(alive, 0), 1000, "what was just written is left alone");
        for age in 1..=1000 {
            assert!(weigh(alive, age) <= weigh(alive, age - 1));
            assert!(weigh(alive, age) >= alive.min(1000), "age makes no work");
        }
    }
}

#[test]
fn the_order_is_that_of_benefit_over_cost() {
    let pays = |alive: u64, age: u64| (1000 - alive) as f64 * age as f64 / (1000 + alive) as f64;
    let all = (0..=1000).step_by(50).flat_map(|alive| [(alive, 150), (alive, 400), (alive, 1000)]);
    let all: Vec<(u64, u64)> = all.collect();
    for &(alive, age) in &all {
        for &(other, other_age) in &all {
            // By more than what thousandths can tell.
            if pays(alive, age) > pays(other, other_age) + 2.0 {
                assert!(
                    weigh(alive, age) < weigh(other, other_age),
                    "{alive} {age} {other} {other_age}"
                );
            }
        }
    }
}

#[test]
fn only_what_is_of_one_age_goes_together() {
    let of = |density, age| Victim { age, ..victim(density, 10) };
    let (old, young) = (AgeClass::Old, AgeClass::Young);
    let mut victims: VecDeque<Victim> =
        [of(100, young), of(200, old), of(300, young), of(400, old), of(500, young)].into();
    assert_eq!(choose(&mut victims, 45, 100), [ObjectId(100), ObjectId(300)]);
    assert_eq!(choose(&mut victims, 45, 100), [ObjectId(200), ObjectId(400)]);
    assert_eq!(choose(&mut victims, 45, 100), [], "the rest is not worth it");
    assert_eq!(victims.len(), 1);
    let ages = [1000, 500, 499, 250, 249, 0].map(age_class);
    let middling = AgeClass::Middling;
    assert_eq!(ages, [old, old, middling, middling, young, young]);
}

#[test]
fn the_less_room_there_is_the_less_must_have_died() {
    let options = ReclaimOptions { loose_bytes_min: 1, ..ReclaimOptions::default() };
    let room = |available_bytes| Room { available_bytes, total_bytes: 1 << 20, ..Room::default() };
    let table = [(1 << 20, 1 << 16), (1 << 18, 1 << 16), (200_000, 1 << 14), (10_000, 1 << 12)];
    for (available, bytes) in table {
        assert_eq!(step_bytes(&room(available), &options), bytes, "{available} are free");
    }
}
