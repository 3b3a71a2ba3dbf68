//! POSIX access control lists, in the layout the kernel hands over as `system.posix_acl_*`.
//!
//! The kernel checks permissions (`default_permissions` with POSIX_ACL); what is left to us is what a
//! file system does: keep mode bits and access ACL in step, and inherit default ACLs. Rules: acl(5);
//! POSIX.1e draft 17, 23.1.
//!
//! ```text
//! value: u32 version = 2, then entries of 8 bytes: u16 tag, u16 permissions, u32 id (LE)
//! ```

/// The extended attribute of the ACL that governs access.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The extended attribute of the ACL that new entries of a directory inherit.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

/// Entries of one ACL; bounded by the size of an attribute (64 KiB).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Acl {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Acl {
    /// Parses and checks a value. None if it is not a valid ACL.
    pub(super) fn decode(value: &[u8]) -> Option<Acl> {
        let (version, rest) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() % 8 != 0 {
            return None;
        }
        let entries = rest
            .chunks_exact(8)
            .map(|bytes| Entry {
                tag: u16::from_le_bytes([bytes[0], bytes[1]]),
                permissions: u16::from_le_bytes([bytes[2], bytes[3]]),
                id: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            })
            .collect();
        let acl = Acl { entries };
        acl.is_valid().then_some(acl)
    }

    /// The value to store.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.permissions.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// The nine permission bits this ACL stands for: the mask takes the group's place.
    pub(super) fn mode(&self) -> u32 {
        let group = self.find(MASK).or_else(|| self.find(GROUP_OBJ)).unwrap_or(0);
        let user = self.find(USER_OBJ).unwrap_or(0);
        let other = self.find(OTHER).unwrap_or(0);
        u32::from(user) << 6 | u32::from(group) << 3 | u32::from(other)
    }

    /// True if the mode bits say all of it.
    pub(super) fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    /// After chmod: the bits go to owner, mask (or owning group if there is no mask) and other.
    pub(super) fn set_mode(&mut self, mode: u32) {
        let has_mask = self.find(MASK).is_some();
        for entry in &mut self.entries {
            match entry.tag {
                USER_OBJ => entry.permissions = (mode >> 6 & 7) as u16,
                GROUP_OBJ if !has_mask => entry.permissions = (mode >> 3 & 7) as u16,
                MASK => entry.permissions = (mode >> 3 & 7) as u16,
                OTHER => entry.permissions = (mode & 7) as u16,
                _ => {}
            }
        }
    }

    /// The access ACL of a new inode below a directory with this default ACL: every class is limited
    /// by the mode that was asked for; the umask plays no part.
    pub(super) fn inherited(&self, mode: u32) -> Acl {
        let mut acl = self.clone();
        let wanted = Acl { entries: self.entries.clone() }.mode() & mode;
        acl.set_mode(wanted);
        acl
    }

    fn find(&self, tag: u16) -> Option<u16> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }

    /// Tags in order, required ones once, a mask where named users or groups are.
    fn is_valid(&self) -> bool {
        let count = |tag| self.entries.iter().filter(|entry| entry.tag == tag).count();
        let in_order = self.entries.windows(2).all(|pair| {
            let key = |entry: &Entry| (entry.tag, if entry.id == NO_ID { 0 } else { entry.id });
            match pair[0].tag {
                USER | GROUP => key(&pair[0]) < key(&pair[1]) || pair[0].tag < pair[1].tag,
                _ => pair[0].tag < pair[1].tag,
            }
        });
        let known = self.entries.iter().all(|entry| {
            matches!(entry.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER)
                && entry.permissions <= 7
        });
        let named = count(USER) + count(GROUP) > 0;
        in_order
            && known
            && count(USER_OBJ) == 1
            && count(GROUP_OBJ) == 1
            && count(OTHER) == 1
            && (!named || count(MASK) == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl {
            entries: entries
                .iter()
                .map(|&(tag, permissions, id)| Entry { tag, permissions, id })
                .collect(),
        }
    }

    fn full() -> Acl {
        acl(&[
            (USER_OBJ, 7, NO_ID),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, NO_ID),
            (MASK, 6, NO_ID),
            (OTHER, 4, NO_ID),
        ])
    }

    #[test]
    fn values_round_trip_and_nonsense_is_refused() {
        assert_eq!(Acl::decode(&full().encode()), Some(full()));
        assert_eq!(Acl::decode(b""), None);
        assert_eq!(Acl::decode(&[2, 0, 0, 0]), None);
        let mut value = full().encode();
        value.pop();
        assert_eq!(Acl::decode(&value), None);
        let without_mask =
            acl(&[(USER_OBJ, 7, NO_ID), (USER, 6, 1), (GROUP_OBJ, 5, NO_ID), (OTHER, 4, NO_ID)]);
        assert_eq!(Acl::decode(&without_mask.encode()), None);
    }

    #[test]
    fn the_mask_is_the_group_bits() {
        assert_eq!(full().mode(), 0o764);
        let mut changed = full();
        changed.set_mode(0o640);
        assert_eq!(changed.mode(), 0o640);
        assert_eq!(changed.find(GROUP_OBJ), Some(5), "with a mask the group entry stays");
    }

    #[test]
    fn a_new_file_gets_no_more_than_it_asked_for() {
        assert_eq!(full().inherited(0o600).mode(), 0o600);
        assert_eq!(full().inherited(0o777).mode(), 0o764);
    }
}
