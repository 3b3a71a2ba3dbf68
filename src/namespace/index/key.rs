//! Keys in the memtable: most are 9 to 22 bytes, and those live inside the tree's nodes, so that a
//! search touches no other memory and an insert allocates nothing for them.

use std::borrow::Borrow;
use std::cmp::Ordering;

const SHORT_BYTES_MAX: usize = 22;

/// A key that owns its bytes. Ordered as they are.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 24);

impl Key {
    pub(super) fn new(key: &[u8]) -> Key {
        if key.len() <= SHORT_BYTES_MAX {
            let mut bytes = [0; SHORT_BYTES_MAX];
            bytes[..key.len()].copy_from_slice(key);
            Key::Short { length: key.len() as u8, bytes }
        } else {
            Key::Long(key.into())
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Key::Short { length, bytes } => &bytes[..usize::from(*length)],
            Key::Long(bytes) => bytes,
        }
    }

    /// Bytes outside the key itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Key::Short { .. } => 0,
            Key::Long(bytes) => bytes.len() + 16,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_their_bytes() {
        let long = [7u8; 40];
        let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 0], vec![7; 22], vec![7; 23]];
        keys.extend([long.to_vec(), vec![7, 1], vec![8]]);
        for a in &keys {
            for b in &keys {
                assert_eq!(Key::new(a).cmp(&Key::new(b)), a.cmp(b));
            }
            assert_eq!(Key::new(a).as_bytes(), &a[..]);
        }
    }
}
