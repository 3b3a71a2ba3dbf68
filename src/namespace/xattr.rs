//! Extended attributes: one key each. POSIX ACLs are two of them that mode bits follow.

use super::acl::{self, Acl};
use super::core::Core;
use super::error::NamespaceError;
use super::tx::{Attempt, Tx};
use super::types::{Caller, FileKind, XattrMode};
use crate::base::Ino;
use crate::base::limits::{NAME_BYTES_MAX, OPERATION_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use crate::format::{Key, KeyView};

const TRUSTED: &[u8] = b"trusted.";
/// Bytes of names, each with its NUL, that the kernel takes as a list; of what is longer it only learns that.
const LIST_BYTES_MAX: usize = 65_536;
/// Names and values that are looked at in one go; a file with less is listed as of one moment.
const LOOK_BYTES: usize = OPERATION_BYTES_MAX as usize;
/// Attributes of one scan: a value may be a block of its own.
const XATTRS_PER_SCAN: usize = 16;

fn check_name(name: &[u8]) -> Result<(), NamespaceError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX { Err(NamespaceError::Range) } else { Ok(()) }
}

impl Core {
    /// Sets an attribute. Setting `system.posix_acl_access` sets the mode bits that it implies.
    pub(super) fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        caller: Caller,
    ) -> Result<(), NamespaceError> {
        check_name(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(NamespaceError::TooBig);
        }
        self.change(|tx| {
            tx.settle_content(ino)?;
            let mut record = tx.inode(ino)?;
            let key = Key::xattr(ino, name);
            let exists = tx.get(&key)?.is_some();
            match mode {
                XattrMode::Create if exists => return Err(NamespaceError::Exists.into()),
                XattrMode::Replace if !exists => return Err(NamespaceError::NoData.into()),
                XattrMode::Any | XattrMode::Create | XattrMode::Replace => {}
            }
            let mut keep = true;
            if name == acl::ACCESS || name == acl::DEFAULT {
                let list = Acl::decode(value).ok_or(NamespaceError::Invalid)?;
                if name == acl::DEFAULT && record.kind != FileKind::Directory {
                    return Err(NamespaceError::AccessDenied.into());
                }
                if name == acl::ACCESS {
                    record.mode = record.mode & !0o777 | list.mode() as u16;
                    if caller.uid != 0 && caller.gid != record.gid {
                        // As the kernel's own file systems do for somebody outside the group; the
                        // transport knows only the caller's effective group.
                        record.mode &= !0o2000;
                    }
                    keep = !list.is_minimal();
                }
            }
            if keep {
                tx.put(key, value.to_vec());
            } else if exists {
                tx.delete(key);
            }
            record.ctime = tx.now();
            tx.put_inode(ino, &record);
            Ok(())
        })
    }

    /// An attribute's value.
    pub(super) fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, NamespaceError> {
        check_name(name)?;
        self.look(|tx| {
            tx.inode(ino)?;
            Ok(tx.get(&Key::xattr(ino, name))?.ok_or(NamespaceError::NoData)?)
        })
    }

    /// Names of all attributes, or more than the kernel takes; `trusted.*` only for root. In steps: each look
    /// pins the blocks that it passes, and begins anew at each [R19].
    pub(super) fn listxattr(
        &self,
        ino: Ino,
        caller: Caller,
    ) -> Result<Vec<Vec<u8>>, NamespaceError> {
        let (mut names, mut bytes) = (Vec::new(), 0);
        let mut from = Some(Key::xattrs_from(ino));
        while let Some(start) = from.filter(|_| bytes <= LIST_BYTES_MAX) {
            let (some, next) = self.look(|tx| tx.xattr_names(ino, &start))?;
            for name in some {
                if caller.uid == 0 || !name.starts_with(TRUSTED) {
                    bytes += name.len() + 1;
                    names.push(name);
                }
            }
            from = next;
        }
        Ok(names)
    }

    /// Removes an attribute.
    pub(super) fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), NamespaceError> {
        check_name(name)?;
        self.change(|tx| {
            tx.settle_content(ino)?;
            let mut record = tx.inode(ino)?;
            let key = Key::xattr(ino, name);
            if tx.get(&key)?.is_none() {
                return Err(NamespaceError::NoData.into());
            }
            tx.delete(key);
            record.ctime = tx.now();
            tx.put_inode(ino, &record);
            Ok(())
        })
    }
}

impl Tx<'_> {
    /// Some names from a key on, and where to go on.
    fn xattr_names(&mut self, ino: Ino, from: &Key) -> Attempt<(Vec<Vec<u8>>, Option<Key>)> {
        self.inode(ino)?;
        let (mut names, mut bytes, mut list_bytes) = (Vec::new(), 0, 0);
        let mut from = from.clone();
        loop {
            let scan = self.scan(&from, &Key::xattrs_end(ino), XATTRS_PER_SCAN)?;
            for (key, value) in &scan.entries {
                bytes += key.len() + value.len();
                if let Ok(KeyView::Xattr { name, .. }) = KeyView::decode(key) {
                    list_bytes += name.len() + 1;
                    names.push(name.to_vec());
                }
            }
            match scan.next {
                None => return Ok((names, None)),
                Some(next) if bytes >= LOOK_BYTES || list_bytes > LIST_BYTES_MAX => {
                    return Ok((names, Some(Key::from_bytes(&next))));
                }
                Some(next) => from = Key::from_bytes(&next),
            }
        }
    }

    /// What was written to the file before goes into the same batch: attributes follow the inode's own
    /// order [I2]. The record is to be put with `put_inode` after this.
    fn settle_content(&mut self, ino: Ino) -> Attempt<()> {
        self.inline_cut(ino, self.core.inline_bytes_max())
    }
}
