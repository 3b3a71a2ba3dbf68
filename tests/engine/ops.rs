//! Random operations. Targets are indices modulo what exists when their turn comes, so that any list of
//! operations is valid, and so is any part of it: that is what makes failing runs easy to minimise.

use isotherm::base::{KIB, MIB, Random, WallTime};
use isotherm::model::{Kind, Rename, Reserve, XattrMode};

use super::shelf::Mishap;

/// An index modulo what exists.
pub type Pick = u32;

/// Where in a file.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// At this byte.
    Byte(u64),
    /// At its end.
    End,
}

/// What of an inode is set.
#[derive(Clone, Copy, Debug)]
pub enum Set {
    Mode(u32),
    Owner(Option<u32>, Option<u32>),
    Times(Option<WallTime>, Option<WallTime>),
    ModeAndTime(u32, WallTime),
}

/// Work that the background does at times of its own.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A root is written.
    Checkpoint,
    /// It is looked for what lacks shards.
    Repair,
    /// It is looked for what is not wholly alive.
    Reclaim,
    /// Every shard is read, and what is bad is mended.
    Check,
}

/// Kinds of operations, as [`Op::kind`] calls them; without those that only look.
pub const KINDS: [&str; 25] = [
    "make",
    "link",
    "unlink",
    "rmdir",
    "rename",
    "rename-over",
    "missing",
    "open",
    "close",
    "read",
    "write",
    "rewrite",
    "replace",
    "truncate",
    "allocate",
    "seek",
    "set",
    "setxattr",
    "removexattr",
    "readlink",
    "list",
    "fsync",
    "sync",
    "pass",
    "work",
];

impl Op {
    /// What kind it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Make { .. } => "make",
            Op::Link { .. } => "link",
            Op::Unlink { .. } => "unlink",
            Op::Rmdir { .. } => "rmdir",
            Op::Rename { .. } => "rename",
            Op::RenameOver { .. } => "rename-over",
            Op::Missing { .. } => "missing",
            Op::Open { .. } => "open",
            Op::Close { .. } => "close",
            Op::Read { .. } => "read",
            Op::Write { .. } => "write",
            Op::Rewrite { .. } => "rewrite",
            Op::Replace { .. } => "replace",
            Op::Truncate { .. } => "truncate",
            Op::Allocate { .. } => "allocate",
            Op::Seek { .. } => "seek",
            Op::Set { .. } => "set",
            Op::SetXattr { .. } => "setxattr",
            Op::RemoveXattr { .. } => "removexattr",
            Op::Readlink { .. } => "readlink",
            Op::List { .. } => "list",
            Op::Fsync { .. } => "fsync",
            Op::Sync => "sync",
            Op::Work { .. } => "work",
            Op::Befall { .. } => "befall",
            Op::Pass { .. } => "pass",
            Op::Compare => "compare",
        }
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    Make {
        dir: Pick,
        name: Pick,
        kind: Kind,
        mode: u32,
        who: Pick,
    },
    Link {
        inode: Pick,
        dir: Pick,
        name: Pick,
    },
    Unlink {
        entry: Pick,
    },
    Rmdir {
        directory: Pick,
    },
    Rename {
        entry: Pick,
        dir: Pick,
        name: Pick,
        mode: Rename,
    },
    RenameOver {
        entry: Pick,
        over: Pick,
        mode: Rename,
    },
    /// Takes away a name that does not exist.
    Missing {
        dir: Pick,
        name: Pick,
    },
    Open {
        inode: Pick,
    },
    Close {
        handle: Pick,
    },
    Read {
        file: Pick,
        at: u64,
        length: u64,
    },
    Write {
        file: Pick,
        at: At,
        length: u64,
        fill: u64,
        kill: bool,
    },
    /// Truncates and at once writes again, as editors and shells do.
    Rewrite {
        file: Pick,
        length: u64,
        fill: u64,
    },
    /// Writes a new file beside, and renames it over: must never yield an empty file [I2].
    Replace {
        entry: Pick,
        length: u64,
        fill: u64,
        fsync: bool,
    },
    Truncate {
        file: Pick,
        size: u64,
        kill: bool,
    },
    Allocate {
        file: Pick,
        at: u64,
        length: u64,
        how: Reserve,
        kill: bool,
    },
    Seek {
        file: Pick,
        at: u64,
        data: bool,
    },
    Set {
        inode: Pick,
        set: Set,
    },
    SetXattr {
        inode: Pick,
        name: Pick,
        length: u32,
        fill: u64,
        mode: XattrMode,
    },
    RemoveXattr {
        inode: Pick,
        name: Pick,
    },
    Readlink {
        inode: Pick,
    },
    List {
        dir: Pick,
        at_a_time: u32,
    },
    Fsync {
        inode: Pick,
    },
    Sync,
    /// Work of the background, now.
    Work {
        work: Work,
    },
    /// Something happens to a disk.
    Befall {
        disk: Pick,
        mishap: Mishap,
    },
    /// Lets simulated time pass, and with it background work.
    Pass {
        ms: u64,
    },
    /// Compares the whole tree.
    Compare,
}

/// Which operations, and how large.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Largest write.
    pub write_bytes_max: u64,
    /// One in so many writes is beyond 3 objects; 0: none.
    pub large_one_in: u64,
    /// One in so many operations is an fsync or sync.
    pub sync_one_in: u64,
    /// Sizes up to this by truncate (holes cost nothing).
    pub size_max: u64,
    /// One in so many operations is a mishap of a disk; 0: none.
    pub mishap_one_in: u64,
    /// One in so many operations is work of the background; 0: none.
    pub work_one_in: u64,
}

impl Mix {
    /// Small trees, small files: many runs a second.
    pub const SMALL: Mix = Mix {
        write_bytes_max: 200 * KIB,
        large_one_in: 0,
        sync_one_in: 12,
        size_max: 4 * MIB,
        mishap_one_in: 0,
        work_one_in: 0,
    };
    /// Also files beyond three objects.
    pub const LARGE: Mix = Mix {
        write_bytes_max: 3 * MIB,
        large_one_in: 12,
        sync_one_in: 20,
        size_max: 1 << 40,
        mishap_one_in: 0,
        work_one_in: 0,
    };
    /// Everything: failing disks, work of the background, now and then a file beyond three objects.
    pub const FULL: Mix = Mix {
        write_bytes_max: 200 * KIB,
        large_one_in: 150,
        sync_one_in: 14,
        size_max: 1 << 40,
        mishap_one_in: 14,
        work_one_in: 40,
    };
}

/// A list of operations.
pub fn generate(random: &mut Random, count: usize, mix: Mix) -> Vec<Op> {
    let mut ops: Vec<Op> = (0..3)
        .map(|_| Op::Make {
            dir: pick(random),
            name: pick(random),
            kind: Kind::Directory,
            mode: 0o755,
            who: 0,
        })
        .collect();
    ops.extend((0..count).map(|_| operation(random, mix)));
    ops
}

fn pick(random: &mut Random) -> Pick {
    random.next_u64() as Pick
}

#[allow(clippy::too_many_lines, reason = "one match over the alphabet")]
fn operation(random: &mut Random, mix: Mix) -> Op {
    if mix.mishap_one_in > 0 && random.one_in(mix.mishap_one_in) {
        return Op::Befall { disk: pick(random), mishap: mishap(random) };
    }
    if mix.work_one_in > 0 && random.one_in(mix.work_one_in) {
        let work =
            [Work::Checkpoint, Work::Repair, Work::Reclaim, Work::Check][random.below(4) as usize];
        return Op::Work { work };
    }
    if random.one_in(mix.sync_one_in) {
        return if random.one_in(5) { Op::Sync } else { Op::Fsync { inode: pick(random) } };
    }
    match random.below(100) {
        0..18 => make(random),
        18..22 => Op::Link { inode: pick(random), dir: pick(random), name: pick(random) },
        22..28 => Op::Unlink { entry: pick(random) },
        28..30 => Op::Rmdir { directory: pick(random) },
        30..34 => {
            let (entry, dir, name) = (pick(random), pick(random), pick(random));
            Op::Rename { entry, dir, name, mode: rename_mode(random) }
        }
        34..38 => {
            Op::RenameOver { entry: pick(random), over: pick(random), mode: rename_mode(random) }
        }
        38 => Op::Missing { dir: pick(random), name: pick(random) },
        39..41 => Op::Open { inode: pick(random) },
        41..44 => Op::Close { handle: pick(random) },
        44..52 => {
            Op::Read { file: pick(random), at: offset(random, mix), length: length(random, mix) }
        }
        52..66 => write(random, mix),
        66..69 => {
            Op::Rewrite { file: pick(random), length: length(random, mix), fill: random.next_u64() }
        }
        69..72 => Op::Replace {
            entry: pick(random),
            length: length(random, mix),
            fill: random.next_u64(),
            fsync: random.one_in(3),
        },
        72..76 => Op::Truncate {
            file: pick(random),
            size: if random.one_in(8) { random.below(mix.size_max) } else { offset(random, mix) },
            kill: random.one_in(4),
        },
        76..79 => Op::Allocate {
            file: pick(random),
            at: offset(random, mix),
            length: length(random, mix),
            how: [
                Reserve::Extend,
                Reserve::KeepSize,
                Reserve::PunchHole,
                Reserve::Zero,
                Reserve::ZeroKeepSize,
            ][random.below(5) as usize],
            kill: random.one_in(4),
        },
        79..81 => Op::Seek { file: pick(random), at: offset(random, mix), data: random.one_in(2) },
        81..87 => Op::Set { inode: pick(random), set: set(random) },
        87..90 => Op::SetXattr {
            inode: pick(random),
            name: pick(random),
            length: if random.one_in(10) { random.below(65 * KIB) } else { random.below(200) }
                as u32,
            fill: random.next_u64(),
            mode: [XattrMode::Any, XattrMode::Any, XattrMode::Create, XattrMode::Replace]
                [random.below(4) as usize],
        },
        90 => Op::RemoveXattr { inode: pick(random), name: pick(random) },
        91 => Op::Readlink { inode: pick(random) },
        92..95 => Op::List { dir: pick(random), at_a_time: 1 + random.below(20) as u32 },
        95..99 => {
            let limit_ms = if random.one_in(4) { 12_000 } else { 300 };
            Op::Pass { ms: random.below(limit_ms) }
        }
        _ => Op::Compare,
    }
}

fn make(random: &mut Random) -> Op {
    let kind = match random.below(40) {
        0..24 => Kind::File,
        24..33 => Kind::Directory,
        33..36 => Kind::Symlink,
        36 => Kind::BlockDevice,
        37 => Kind::CharDevice,
        38 => Kind::Fifo,
        _ => Kind::Socket,
    };
    let mode = if random.one_in(5) { random.below(0o10000) as u32 } else { 0o644 };
    // mkdir(2) takes suid and sgid off before anybody sees them.
    let mode = if kind == Kind::Directory { mode & 0o1777 } else { mode };
    Op::Make { dir: pick(random), name: pick(random), kind, mode, who: pick(random) }
}

fn write(random: &mut Random, mix: Mix) -> Op {
    let large = mix.large_one_in > 0 && random.one_in(mix.large_one_in);
    Op::Write {
        file: pick(random),
        at: match random.below(3) {
            0 => At::End,
            1 if !large => At::Byte(0),
            _ => At::Byte(offset(random, mix)),
        },
        length: if large { 8 * MIB + random.below(20 * MIB) } else { length(random, mix) },
        fill: random.next_u64(),
        kill: random.one_in(4),
    }
}

fn mishap(random: &mut Random) -> Mishap {
    match random.below(20) {
        0 => Mishap::Slow(2 + random.below(99) as u32),
        1 => Mishap::Hang,
        2 => Mishap::HangFlush,
        3 => Mishap::Detach,
        4 => Mishap::LoseWrites(1 + random.below(20) as u32),
        5 => Mishap::Misdirect(random.below(2000) as i32 - 1000),
        6 => Mishap::Rot(1 + random.below(5000) as u32),
        7 => Mishap::BadRange(random.below(64) as u32),
        8 => Mishap::LieAboutFlush,
        9 => Mishap::ReadErrors(random.below(30) as u32),
        10 => Mishap::WriteErrors(random.below(30) as u32),
        11..15 => Mishap::Return,
        _ => Mishap::Heal,
    }
}

fn rename_mode(random: &mut Random) -> Rename {
    [Rename::Replace, Rename::Replace, Rename::NoReplace, Rename::Exchange]
        [random.below(4) as usize]
}

/// A size close to an edge of something: unit, cell, shard, object; or any.
fn edge(random: &mut Random, max: u64) -> u64 {
    let step =
        [1, 4 * KIB, 4 * KIB, 32 * KIB, 64 * KIB, 2 * MIB, 12 * MIB][random.below(7) as usize];
    let value = if step == 1 {
        let bits = random.below(64 - u64::from(max.leading_zeros()) + 1);
        random.below((1 << bits).max(1))
    } else {
        let multiple = random.below(4) * step;
        match random.below(3) {
            0 => multiple,
            1 => multiple + random.below(3),
            _ => multiple.saturating_sub(random.below(3)),
        }
    };
    value % (max + 1)
}

fn offset(random: &mut Random, mix: Mix) -> u64 {
    edge(random, (4 * mix.write_bytes_max).min(40 * MIB))
}

fn length(random: &mut Random, mix: Mix) -> u64 {
    edge(random, mix.write_bytes_max).max(1)
}

fn set(random: &mut Random) -> Set {
    let time = |random: &mut Random| WallTime {
        seconds: random.below(1 << 30) as i64 - if random.one_in(8) { 1 << 30 } else { 0 },
        nanos: random.below(1_000_000_000) as u32,
    };
    let half = |random: &mut Random| random.one_in(2);
    match random.below(8) {
        0..3 => Set::Mode(random.below(0o10000) as u32),
        3..5 => Set::Owner(
            half(random).then(|| random.below(4) as u32),
            half(random).then(|| random.below(4) as u32),
        ),
        5..7 => {
            let (a, m) = (time(random), time(random));
            let both = random.below(3);
            Set::Times((both != 0).then_some(a), (both != 1).then_some(m))
        }
        _ => Set::ModeAndTime(random.below(0o10000) as u32, time(random)),
    }
}

/// Names come from a small set, so that they meet again; a few have 255 bytes, or bytes of no text.
pub fn name(pick: Pick) -> Vec<u8> {
    let number = pick % 24;
    match number {
        0 => vec![b'n'; 255],
        1 => [&[0xff, b'\n', 0x01][..], &[b'x'; 252]].concat(),
        2 => vec![b'n'; 256],
        3 => " ".into(),
        _ => format!("name-{number}").into_bytes(),
    }
}

/// Names of extended attributes.
pub fn xattr_name(pick: Pick) -> Vec<u8> {
    format!("user.attribute-{}", pick % 5).into_bytes()
}

/// Bytes that belong to `fill`, and to no other.
pub fn bytes(fill: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    let mut random = Random::new(fill);
    if fill.is_multiple_of(16) {
        // Text-like: the same short words again and again, zeros among them.
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (index / 7 % 5) as u8;
        }
    } else {
        random.fill(&mut bytes);
    }
    bytes
}
