//! Which disks share an enclosure, and what its loss takes [R24]. Pure, but for what `plan.rs` has seen.
//!
//! Detected: the enclosure, USB device or controller that each disk hangs on. That is taken where every
//! object can keep to at most m shards in each; where it cannot (two shelves of four, and seven shards), it
//! is only told, because spreading as evenly as possible would promise nothing and cost the freedom to go
//! to the disk that is free. What the administrator names is taken as it is.

use std::path::Path;

use super::plan::PlannedDisk;
use crate::format::Redundancy;

/// Disks that share one enclosure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// As named, or as the kernel knows it.
    pub name: String,
    /// Which of the planned disks, ascending.
    pub disks: Vec<usize>,
}

/// The enclosures of a pool that is to be.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Enclosures {
    /// Empty if nothing is known, or all disks share a fate, or none do.
    pub groups: Vec<Group>,
    /// Placement keeps to them.
    pub limits: bool,
    disks: usize,
}

/// Why enclosures cannot be taken as named.
#[derive(Debug, thiserror::Error)]
pub enum EnclosureError {
    /// It does not read `NAME=DISK,DISK`.
    #[error(
        "\"{word}\" names no enclosure: write NAME=DISK,DISK,... with disks of this pool, or none"
    )]
    Form {
        /// As given.
        word: String,
    },
    /// Not one of the pool's.
    #[error("{disk} of enclosure \"{name}\" is not among the disks of this pool")]
    NotAMember {
        /// Which enclosure.
        name: String,
        /// As given.
        disk: String,
    },
    /// Two enclosures have it.
    #[error("{disk} is in two enclosures, \"{first}\" and \"{second}\"")]
    Twice {
        /// Which disk.
        disk: String,
        /// One enclosure.
        first: String,
        /// The other.
        second: String,
    },
}

impl Enclosures {
    /// What the kernel knows.
    pub fn detected(disks: &[PlannedDisk], redundancy: Option<Redundancy>) -> Enclosures {
        let mut groups: Vec<Group> = Vec::new();
        for (index, disk) in disks.iter().enumerate() {
            let Some(name) = &disk.enclosure else { continue };
            add(&mut groups, name, index);
        }
        let all_in_one = groups.iter().any(|group| group.disks.len() == disks.len());
        let all_alone = groups.iter().all(|group| group.disks.len() == 1);
        if all_in_one || all_alone {
            groups.clear();
        }
        let mut found = Enclosures { groups, limits: false, disks: disks.len() };
        found.limits = !found.groups.is_empty()
            && redundancy.is_some_and(|it| found.shared_at_most(it) <= it.tolerates());
        found
    }

    /// What the administrator says: `NAME=DISK,DISK` each, or `none` alone.
    pub fn named(disks: &[PlannedDisk], words: &[String]) -> Result<Enclosures, EnclosureError> {
        let mut groups: Vec<Group> = Vec::new();
        for word in words.iter().filter(|_| words != ["none"]) {
            let wrong = || EnclosureError::Form { word: word.clone() };
            let (name, paths) = word.split_once('=').ok_or_else(wrong)?;
            if name.is_empty() || paths.is_empty() {
                return Err(wrong());
            }
            for path in paths.split(',') {
                let (disk, name) = (path.to_string(), name.to_string());
                let Some(index) = disks.iter().position(|disk| is_at(disk, path)) else {
                    return Err(EnclosureError::NotAMember { name, disk });
                };
                if let Some(other) = groups.iter().find(|group| group.disks.contains(&index)) {
                    let first = other.name.clone();
                    return Err(EnclosureError::Twice { disk, first, second: name });
                }
                add(&mut groups, &name, index);
            }
        }
        Ok(Enclosures { limits: !groups.is_empty(), groups, disks: disks.len() })
    }

    /// The number of each disk's enclosure, as a pool keeps it: from 1.
    pub fn labels(&self) -> Vec<Option<u16>> {
        let number = |disk: usize| {
            let at = self.groups.iter().position(|group| group.disks.contains(&disk))?;
            u16::try_from(at + 1).ok()
        };
        (0..self.disks).map(|disk| number(disk).filter(|_| self.limits)).collect()
    }

    /// How many shards of one object share an enclosure at most, if they are spread as well as they can.
    pub fn shared_at_most(&self, redundancy: Redundancy) -> usize {
        let grouped: usize = self.groups.iter().map(|group| group.disks.len()).sum();
        let alone = self.disks - grouped;
        let holds = |cap: &usize| {
            let inside: usize = self.groups.iter().map(|group| group.disks.len().min(*cap)).sum();
            inside + alone >= redundancy.shards()
        };
        // The cap that placement starts from: fewer would be luck.
        (redundancy.tolerates().max(1)..redundancy.shards())
            .find(holds)
            .unwrap_or(redundancy.shards())
    }
}

fn add(groups: &mut Vec<Group>, name: &str, disk: usize) {
    match groups.iter_mut().find(|group| group.name == name) {
        Some(group) => group.disks.push(disk),
        None => groups.push(Group { name: name.to_string(), disks: vec![disk] }),
    }
}

/// By the path given, or another that leads to the same place.
fn is_at(disk: &PlannedDisk, path: &str) -> bool {
    let real = |path: &str| std::fs::canonicalize(Path::new(path)).ok();
    disk.path == path || real(path).is_some_and(|found| Some(found) == real(&disk.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC_5_2: Redundancy = Redundancy::Erasure { data: 5, parity: 2 };
    const EC_4_2: Redundancy = Redundancy::Erasure { data: 4, parity: 2 };

    fn disks(of: &[&str]) -> Vec<PlannedDisk> {
        let disk = |(number, of): (usize, &&str)| PlannedDisk {
            path: format!("/dev/sd{number}"),
            model: String::new(),
            serial: String::new(),
            bytes: 1 << 30,
            data_bytes: 1 << 29,
            enclosure: (!of.is_empty()).then(|| of.to_string()),
            used: Vec::new(),
            foreign: Vec::new(),
        };
        of.iter().enumerate().map(disk).collect()
    }

    #[test]
    fn r24_what_is_detected_limits_where_it_can_and_is_told_where_not() {
        let three = disks(&["a", "b", "c", "a", "b", "c", "a", ""]);
        let found = Enclosures::detected(&three, Some(EC_4_2));
        let (a, b, c) = (Some(1), Some(2), Some(3));
        assert_eq!(found.labels(), [a, b, c, a, b, c, a, None]);
        assert_eq!((found.limits, found.shared_at_most(EC_4_2)), (true, 2));
        let two = disks(&["a", "a", "a", "a", "b", "b", "b", "b"]);
        let found = Enclosures::detected(&two, Some(EC_5_2));
        assert_eq!((found.limits, found.shared_at_most(EC_5_2)), (false, 4));
        assert_eq!(found.groups.len(), 2, "told");
        assert!(found.labels().iter().all(Option::is_none));
        for same in [["a"; 8], [""; 8], ["a", "b", "c", "d", "e", "f", "g", "h"]] {
            let found = Enclosures::detected(&disks(&same), Some(EC_4_2));
            assert!(found.groups.is_empty() && !found.limits, "{same:?} tells nothing");
        }
    }

    #[test]
    fn r24_what_is_named_is_taken() {
        let disks = disks(&["x", "x", "x", "x"]);
        let named = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            Enclosures::named(&disks, &words)
        };
        let found = named(&["left=/dev/sd0,/dev/sd2", "right=/dev/sd3"]).expect("well said");
        assert_eq!(found.labels(), [Some(1), None, Some(1), Some(2)]);
        let none = named(&["none"]).expect("all stand alone");
        assert!(none.labels().iter().all(Option::is_none) && !none.limits);
        for wrong in [&["left"][..], &["=/dev/sd0"], &["left="], &["none", "none"]] {
            assert!(matches!(named(wrong), Err(EnclosureError::Form { .. })), "{wrong:?}");
        }
        let not = named(&["left=/dev/sd9"]);
        assert!(matches!(not, Err(EnclosureError::NotAMember { .. })));
        let twice = named(&["left=/dev/sd0", "right=/dev/sd0"]);
        assert!(matches!(twice, Err(EnclosureError::Twice { .. })));
    }
}
