//! Making a pool: first roots and labels on all its disks.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Everything is checked: names, sizes, distinct physical drives [R24], nobody uses them, nothing
//!    foreign on them, or `force` [I9]. Nothing on disk.
//! 2. With `force`: the signatures found are blanked, so that nothing takes these disks for what they
//!    were. A crash leaves disks without signatures.
//! 3. The first root goes to slot 0 of every disk. A crash leaves disks that look empty.
//! 4. The labels, one copy after the other [R6]. A crash leaves an incomplete pool, which no mount
//!    takes as long as more than m labels are missing; `create --force` makes it anew.
//!
//! Unlike later, every single write must succeed: a disk that fails here has no place in a new pool.

use std::path::Path;

use super::plan::use_in_words;
use crate::base::limits::DISKS_MAX;
use crate::base::sync::Arc;
use crate::base::units::round_down;
use crate::base::{DiskIndex, DiskUuid, Ino, Lsn, PoolUuid, Random, UNIT_BYTES};
use crate::fleet::access::{Access, Miss, WriteAt};
use crate::fleet::disk::probe::Probe;
use crate::fleet::disk::{Class, DiskHandle, Slice};
use crate::format::label::POOL_NAME_BYTES_MAX;
use crate::format::root::SERIAL_BYTES_MAX;
use crate::format::{
    DiskLayout, EpochClaim, FormatError, LABEL_COPIES, Label, MemberEntry, MemberState,
    MemberStates, PoolConfig, Redundancy, RingHead, Root,
};

/// A disk that is to become a member: opened exclusively, and what probing found before.
pub struct NewDisk {
    /// The open disk.
    pub disk: DiskHandle,
    /// What is on it and who uses it.
    pub probe: Probe,
}

/// What pool to make.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Its name: 1 to 63 bytes, no slash, no control characters.
    pub name: String,
    /// For new objects; its m decides how many disks may be lost.
    pub redundancy: Redundancy,
    /// Which enclosure each disk is in, in the order of the disks; what is beyond its end is in none.
    pub enclosures: Vec<Option<u16>>,
    /// This machine.
    pub machine_id: [u8; 16],
    /// Seconds since 1970.
    pub now_seconds: i64,
    /// Takes disks with something on them [I9].
    pub force: bool,
}

/// Why no pool was made. Unless it says otherwise, nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name cannot be one.
    #[error("\"{name}\" cannot be a pool's name: 1 to 63 bytes, without slashes")]
    Name {
        /// As given.
        name: String,
    },
    /// More disks than a pool can have, or fewer than its redundancy needs.
    #[error("{have} disks given: the redundancy needs {need}, a pool has at most {DISKS_MAX}")]
    Disks {
        /// Disks given.
        have: usize,
        /// Disks that the redundancy needs.
        need: usize,
    },
    /// Two of the disks are one physical drive [R24].
    #[error("{first} and {second} are the same physical drive: one failure would take both")]
    SameDrive {
        /// One path.
        first: String,
        /// The other.
        second: String,
    },
    /// Something is on it [I9].
    #[error("{path} is not empty: {what}; --force overwrites it")]
    Foreign {
        /// Which disk.
        path: String,
        /// What was found.
        what: String,
    },
    /// Somebody uses it: not even `force` takes it [I9].
    #[error("{path} is in use: {by}; nothing was written")]
    Used {
        /// Which disk.
        path: String,
        /// By whom.
        by: String,
    },
    /// Too small, or impossible.
    #[error("{path}: {source}")]
    Layout {
        /// Which disk.
        path: String,
        /// Why.
        source: FormatError,
    },
    /// A write failed or was late. Disks may have been written to.
    #[error("{path} could not be written: {miss:?}")]
    Write {
        /// Which disk.
        path: String,
        /// How it failed.
        miss: Miss,
    },
}

/// Makes a pool of `disks`, in the order given. `random` must be unpredictable: identities and the key
/// of the name hash are drawn from it. Returns the new pool's identity.
pub fn create(
    access: &Access,
    options: &CreateOptions,
    disks: &[NewDisk],
    random: &mut Random,
) -> Result<PoolUuid, CreateError> {
    check(options, disks)?;
    let layouts = layouts(disks)?;
    if options.force {
        blank_signatures(access, disks)?;
    }
    let pool = PoolUuid(draw(random));
    let uuids: Vec<DiskUuid> = disks.iter().map(|_| DiskUuid(draw(random))).collect();
    let claim = EpochClaim { id: random.next_u64(), ..EpochClaim::default() };
    let root = first_root(pool, claim, options, disks, &uuids, &layouts, random);
    let slots = disks.iter().zip(&layouts).zip(&uuids).map(|((new, layout), &uuid)| {
        let bytes = root.encode(uuid, 0).expect("a root without chains is small");
        (new, layout.slot_offset(0), bytes)
    });
    write(access, slots.collect())?;
    for copy in 0..LABEL_COPIES {
        let labels = (0..disks.len()).map(|index| {
            let label = Label {
                pool,
                pool_name: options.name.clone(),
                created_seconds: options.now_seconds,
                disk: uuids[index],
                index: DiskIndex(index as u16),
                member_count: disks.len() as u16,
                sequence: 1,
                layout: layouts[index],
                claim,
                machine_id: options.machine_id,
                open: false,
                redundancy: options.redundancy,
                member_states: MemberStates::default(),
            };
            (&disks[index], layouts[index].label_offsets[copy], label.encode())
        });
        write(access, labels.collect())?;
    }
    Ok(pool)
}

/// Step 1.
fn check(options: &CreateOptions, disks: &[NewDisk]) -> Result<(), CreateError> {
    let name = &options.name;
    let bad = |c: char| c == '/' || c.is_control();
    if name.is_empty() || name.len() > POOL_NAME_BYTES_MAX || name.chars().any(bad) {
        return Err(CreateError::Name { name: name.clone() });
    }
    let (have, need) = (disks.len(), options.redundancy.shards().max(1));
    if have < need || have > DISKS_MAX {
        return Err(CreateError::Disks { have, need });
    }
    for (index, second) in disks.iter().enumerate() {
        let shares = |first: &&NewDisk| !first.probe.drives.is_disjoint(&second.probe.drives);
        let twin = disks[..index].iter().find(shares);
        if let Some(first) = twin {
            let path = |new: &NewDisk| new.probe.identity.path.clone();
            return Err(CreateError::SameDrive { first: path(first), second: path(second) });
        }
    }
    for new in disks {
        let path = new.probe.identity.path.clone();
        if let Some(used) = new.probe.uses.first() {
            let by = use_in_words(used, Path::new(&path));
            return Err(CreateError::Used { path, by });
        }
        let what: Vec<&str> = new.probe.signatures.iter().map(|found| found.name).collect();
        if !what.is_empty() && !options.force {
            return Err(CreateError::Foreign { path, what: what.join(", ") });
        }
    }
    Ok(())
}

fn layouts(disks: &[NewDisk]) -> Result<Vec<DiskLayout>, CreateError> {
    let layout = |new: &NewDisk| {
        let path = new.probe.identity.path.clone();
        DiskLayout::for_disk(new.disk.identity().bytes)
            .map_err(|source| CreateError::Layout { path, source })
    };
    disks.iter().map(layout).collect()
}

/// Step 2.
pub(super) fn blank_signatures(access: &Access, disks: &[NewDisk]) -> Result<(), CreateError> {
    let mut blanks = Vec::new();
    for new in disks {
        for signature in &new.probe.signatures {
            let offset = round_down(signature.offset, UNIT_BYTES);
            if offset + UNIT_BYTES <= new.disk.identity().bytes {
                blanks.push((new, offset, vec![0; UNIT_BYTES as usize]));
            }
        }
    }
    write(access, blanks)
}

fn write(access: &Access, places: Vec<(&NewDisk, u64, Vec<u8>)>) -> Result<(), CreateError> {
    let writes: Vec<WriteAt> = (places.iter())
        .map(|(new, offset, bytes)| WriteAt {
            disk: new.disk.clone(),
            offset: *offset,
            data: Slice::copy_of(bytes),
            hold: Arc::new(()),
        })
        .collect();
    let results = access.write_durably(Class::Foreground, &writes, writes.len());
    for ((new, _, _), result) in places.iter().zip(results) {
        let path = || new.probe.identity.path.clone();
        result.map_err(|miss| CreateError::Write { path: path(), miss })?;
    }
    Ok(())
}

fn first_root(
    pool: PoolUuid,
    claim: EpochClaim,
    options: &CreateOptions,
    disks: &[NewDisk],
    uuids: &[DiskUuid],
    layouts: &[DiskLayout],
    random: &mut Random,
) -> Root {
    let members = (0..disks.len()).map(|index| MemberEntry {
        index: DiskIndex(index as u16),
        uuid: uuids[index],
        bytes: layouts[index].disk_bytes,
        serial: clip(&disks[index].probe.identity.serial),
        state: MemberState::Active,
        enclosure: options.enclosures.get(index).copied().flatten(),
        leaving: false,
    });
    // [R24] What `fleet` keeps to; written down for whoever looks.
    let labelled = options.enclosures.iter().any(Option::is_some);
    let enclosure_cap = if labelled { options.redundancy.tolerates() as u8 } else { 0 };
    let heads =
        (0..disks.len()).map(|index| RingHead { disk: DiskIndex(index as u16), position: 0 });
    Root {
        pool,
        epoch: claim.epoch,
        epoch_id: claim.id,
        sequence: 1,
        replay_lsn: Lsn(0),
        replay_crc: 0,
        object_counter: 0,
        ino_lease: Ino(Ino::ROOT.0 + 1),
        name_hash_key: [random.next_u64(), random.next_u64()],
        inodes: 0,
        user_bytes: 0,
        config: PoolConfig { redundancy: options.redundancy, enclosure_cap },
        members: members.collect(),
        heads: heads.collect(),
        manifest: Vec::new(),
        space: Vec::new(),
    }
}

/// The first bytes of a serial number that fit a root.
pub(super) fn clip(serial: &str) -> String {
    let mut end = serial.len().min(SERIAL_BYTES_MAX);
    while !serial.is_char_boundary(end) {
        end -= 1;
    }
    serial[..end].to_string()
}

fn draw(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    bytes
}
