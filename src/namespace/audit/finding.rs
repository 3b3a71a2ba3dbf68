//! What an audit can find: each kind of contradiction, in words of files.

use std::fmt;

use crate::base::{DiskIndex, Ino, ObjectId, ShardIndex};

/// One contradiction of the index with itself, or with the space map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// A key or its value makes no sense.
    Unreadable {
        /// The key's bytes.
        key: Vec<u8>,
    },
    /// More or fewer inodes than are counted.
    InodeCount {
        /// Inode records there are.
        there: u64,
        /// What the index's counter says.
        index: u64,
        /// What is counted in memory.
        memory: u64,
    },
    /// An inode number that was not handed out yet [R5].
    BeyondLease {
        /// The inode.
        ino: Ino,
    },
    /// The inode counts other links than its names make.
    Links {
        /// The inode.
        ino: Ino,
        /// What its record says.
        recorded: u32,
        /// What its names and directories come to.
        names: u32,
    },
    /// The size of a directory is not that of its names.
    DirectorySize {
        /// The directory.
        ino: Ino,
        /// What its record says.
        recorded: u64,
        /// Bytes of its names.
        names_bytes: u64,
    },
    /// A directory with other than one name; the root with any.
    DirectoryNames {
        /// The directory.
        ino: Ino,
        /// Names it has.
        names: u32,
    },
    /// A directory says that it is in another one than the one which names it.
    Parent {
        /// The directory.
        ino: Ino,
        /// Where it says it is.
        recorded: Ino,
        /// Where its name is.
        found: Ino,
    },
    /// No way leads from this directory up to the root.
    Unreachable {
        /// The directory.
        ino: Ino,
    },
    /// An inode without links that nobody will ever delete.
    Nameless {
        /// The inode.
        ino: Ino,
    },
    /// An inode with links that is to be deleted.
    DoomedWithLinks {
        /// The inode.
        ino: Ino,
    },
    /// Work is left to do on an inode that does not exist.
    WorkOnNobody {
        /// The inode.
        ino: Ino,
    },
    /// A name of an inode that does not exist.
    NameOfNobody {
        /// Where the name is.
        directory: Ino,
        /// The name.
        name: Vec<u8>,
        /// What it is said to name.
        ino: Ino,
    },
    /// A name that says another kind than its inode.
    NameOfOtherKind {
        /// Where the name is.
        directory: Ino,
        /// The name.
        name: Vec<u8>,
        /// What it names.
        ino: Ino,
    },
    /// A name in something that is no directory, or does not exist.
    NameInNoDirectory {
        /// Where the name is.
        directory: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// A name that no lookup finds: it is not kept where its hash says.
    NameMisplaced {
        /// Where the name is.
        directory: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// An extended attribute of an inode that does not exist.
    AttributeOfNobody {
        /// The inode.
        ino: Ino,
        /// The attribute's name.
        name: Vec<u8>,
    },
    /// Content of an inode that does not exist, or is no regular file.
    ExtentOfNobody {
        /// The inode.
        ino: Ino,
        /// Where its first extent begins.
        offset: u64,
    },
    /// A part of a file is in two extents.
    ExtentsOverlap {
        /// The file.
        ino: Ino,
        /// Where the second of them begins.
        offset: u64,
    },
    /// Bytes of a file beyond its end: they would come to light if it grew.
    ExtentBeyondEnd {
        /// The file.
        ino: Ino,
        /// Its size.
        size: u64,
        /// Where its last extent ends.
        end: u64,
    },
    /// An extent in an object of which nothing is known.
    ExtentWithoutObject {
        /// The file.
        ino: Ino,
        /// Where the extent begins.
        offset: u64,
        /// The object.
        object: ObjectId,
    },
    /// An extent that ends beyond the content of its object.
    ExtentBeyondObject {
        /// The file.
        ino: Ino,
        /// Where the extent begins.
        offset: u64,
        /// The object.
        object: ObjectId,
    },
    /// The file's record counts other bytes than its extents have.
    Allocated {
        /// The file.
        ino: Ino,
        /// What its record says.
        recorded: u64,
        /// What its extents come to.
        extents: u64,
    },
    /// An object's counter of live bytes is not what files have in it [R17].
    LiveBytes {
        /// The object.
        object: ObjectId,
        /// A file that is in it.
        ino: Option<Ino>,
        /// What the counter says.
        counter: i64,
        /// What the extents come to.
        extents: u64,
    },
    /// A counter of live bytes of no object.
    LiveBytesOfNobody {
        /// The object.
        object: ObjectId,
    },
    /// No file has a byte in this object, and its space is not given back.
    ObjectUnused {
        /// The object.
        object: ObjectId,
    },
    /// An object's checksum list is missing, is too much, or has another length than its shards [R16].
    ChecksumList {
        /// The object.
        object: ObjectId,
        /// A file that is in it.
        ino: Option<Ino>,
        /// Which list.
        list: ShardIndex,
    },
    /// Checksums of no object.
    ChecksumsOfNobody {
        /// The object.
        object: ObjectId,
    },
    /// A shard is said to be on a disk that is no member, or beyond the end of one.
    ShardOutside {
        /// The object.
        object: ObjectId,
        /// A file that is in it.
        ino: Option<Ino>,
        /// The disk.
        disk: DiskIndex,
        /// The shard's first unit.
        unit: u64,
    },
    /// Two objects have the same place.
    ShardsOverlap {
        /// The object that begins first.
        object: ObjectId,
        /// The one that begins inside it.
        other: ObjectId,
        /// The disk.
        disk: DiskIndex,
        /// Where the other one begins.
        unit: u64,
    },
    /// The space map does not know that this object is here: its place may be given to another one
    /// [R18].
    ShardNotInSpaceMap {
        /// The object.
        object: ObjectId,
        /// The disk.
        disk: DiskIndex,
        /// The shard's first unit.
        unit: u64,
    },
    /// The space map takes for used what no object has [R18].
    SpaceOfNobody {
        /// The disk.
        disk: DiskIndex,
        /// The first unit.
        unit: u64,
        /// How many.
        units: u64,
    },
}

impl Finding {
    /// The file or directory that it is about, if it is about one.
    pub fn ino(&self) -> Option<Ino> {
        match *self {
            Finding::BeyondLease { ino }
            | Finding::Links { ino, .. }
            | Finding::DirectorySize { ino, .. }
            | Finding::DirectoryNames { ino, .. }
            | Finding::Parent { ino, .. }
            | Finding::Unreachable { ino }
            | Finding::Nameless { ino }
            | Finding::DoomedWithLinks { ino }
            | Finding::WorkOnNobody { ino }
            | Finding::NameOfOtherKind { ino, .. }
            | Finding::AttributeOfNobody { ino, .. }
            | Finding::ExtentOfNobody { ino, .. }
            | Finding::ExtentsOverlap { ino, .. }
            | Finding::ExtentBeyondEnd { ino, .. }
            | Finding::ExtentWithoutObject { ino, .. }
            | Finding::ExtentBeyondObject { ino, .. }
            | Finding::Allocated { ino, .. } => Some(ino),
            Finding::NameOfNobody { directory, .. }
            | Finding::NameInNoDirectory { directory, .. }
            | Finding::NameMisplaced { directory, .. } => Some(directory),
            Finding::LiveBytes { ino, .. }
            | Finding::ChecksumList { ino, .. }
            | Finding::ShardOutside { ino, .. } => ino,
            Finding::Unreadable { .. }
            | Finding::InodeCount { .. }
            | Finding::LiveBytesOfNobody { .. }
            | Finding::ObjectUnused { .. }
            | Finding::ChecksumsOfNobody { .. }
            | Finding::ShardsOverlap { .. }
            | Finding::ShardNotInSpaceMap { .. }
            | Finding::SpaceOfNobody { .. } => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell_of_files(f)?;
        self.tell_of_objects(f)
    }
}

// Each finding is told by exactly one of these.
impl Finding {
    fn tell_of_files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Finding::*;
        match self {
            BeyondLease { ino } => write!(f, "inode {ino} has a number not handed out yet"),
            Links { ino, recorded, names } => {
                write!(f, "inode {ino} counts {recorded} links, its names make {names}")
            }
            DirectorySize { ino, recorded, names_bytes } => {
                write!(f, "directory {ino} has a size of {recorded}, its names have {names_bytes}")
            }
            DirectoryNames { ino, names } => write!(f, "directory {ino} has {names} names"),
            Parent { ino, recorded, found } => {
                write!(f, "directory {ino} says it is in {recorded}, its name is in {found}")
            }
            Unreachable { ino } => write!(f, "directory {ino} cannot be reached from the root"),
            Nameless { ino } => write!(f, "inode {ino} has no name, and nobody deletes it"),
            DoomedWithLinks { ino } => write!(f, "inode {ino} has links, and is to be deleted"),
            WorkOnNobody { ino } => write!(f, "work is left on inode {ino}, which is not there"),
            NameOfNobody { directory, name, ino } => write!(
                f,
                "{} in directory {directory} names inode {ino}, which is not there",
                name.escape_ascii()
            ),
            NameOfOtherKind { directory, name, ino } => write!(
                f,
                "{} in directory {directory} says another kind than inode {ino}",
                name.escape_ascii()
            ),
            NameInNoDirectory { directory, name } => {
                write!(f, "{} is in inode {directory}, no directory", name.escape_ascii())
            }
            NameMisplaced { directory, name } => {
                write!(f, "{} in directory {directory} cannot be found", name.escape_ascii())
            }
            AttributeOfNobody { ino, name } => {
                write!(f, "attribute {} of inode {ino}, which is not there", name.escape_ascii())
            }
            ExtentOfNobody { ino, offset } => {
                write!(f, "content at {offset} of inode {ino}, which is no regular file")
            }
            ExtentsOverlap { ino, offset } => {
                write!(f, "inode {ino} has its bytes at {offset} twice")
            }
            ExtentBeyondEnd { ino, size, end } => {
                write!(f, "inode {ino} has {size} bytes, and content up to {end}")
            }
            ExtentWithoutObject { ino, offset, object } => write!(
                f,
                "inode {ino} at {offset} is in object {object}, of which nothing is known"
            ),
            ExtentBeyondObject { ino, offset, object } => {
                write!(f, "inode {ino} at {offset} ends beyond the end of object {object}")
            }
            Allocated { ino, recorded, extents } => {
                write!(f, "inode {ino} counts {recorded} bytes, its extents have {extents}")
            }
            Unreadable { .. }
            | InodeCount { .. }
            | LiveBytes { .. }
            | LiveBytesOfNobody { .. }
            | ObjectUnused { .. }
            | ChecksumList { .. }
            | ChecksumsOfNobody { .. }
            | ShardOutside { .. }
            | ShardsOverlap { .. }
            | ShardNotInSpaceMap { .. }
            | SpaceOfNobody { .. } => Ok(()),
        }
    }

    fn tell_of_objects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Finding::*;
        match self {
            Unreadable { key } => {
                write!(f, "an entry of the index makes no sense: {}", key.escape_ascii())
            }
            InodeCount { there, index, memory } => {
                write!(f, "{there} inodes are there, the index counts {index}, and memory {memory}")
            }
            LiveBytes { object, counter, extents, .. } => {
                write!(f, "object {object} counts {counter} bytes in use, files have {extents}")
            }
            LiveBytesOfNobody { object } => {
                write!(f, "bytes in use of object {object}, which is not there")
            }
            ObjectUnused { object } => write!(f, "object {object} is kept, and no file is in it"),
            ChecksumList { object, list, .. } => {
                write!(f, "checksum list {list} of object {object} is not what it should be")
            }
            ChecksumsOfNobody { object } => {
                write!(f, "checksums of object {object}, which is not there")
            }
            ShardOutside { object, disk, unit, .. } => {
                write!(f, "object {object} is at unit {unit} of disk {disk}, which has none such")
            }
            ShardsOverlap { object, other, disk, unit } => {
                write!(f, "objects {object} and {other} both have unit {unit} of disk {disk}")
            }
            ShardNotInSpaceMap { object, disk, unit } => write!(
                f,
                "object {object} is at unit {unit} of disk {disk}, which may be given away"
            ),
            SpaceOfNobody { disk, unit, units } => {
                write!(f, "{units} units from {unit} of disk {disk} are lost: no object has them")
            }
            BeyondLease { .. }
            | Links { .. }
            | DirectorySize { .. }
            | DirectoryNames { .. }
            | Parent { .. }
            | Unreachable { .. }
            | Nameless { .. }
            | DoomedWithLinks { .. }
            | WorkOnNobody { .. }
            | NameOfNobody { .. }
            | NameOfOtherKind { .. }
            | NameInNoDirectory { .. }
            | NameMisplaced { .. }
            | AttributeOfNobody { .. }
            | ExtentOfNobody { .. }
            | ExtentsOverlap { .. }
            | ExtentBeyondEnd { .. }
            | ExtentWithoutObject { .. }
            | ExtentBeyondObject { .. }
            | Allocated { .. } => Ok(()),
        }
    }
}
