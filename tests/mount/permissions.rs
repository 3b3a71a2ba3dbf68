//! What docs/semantics.md promises about permissions, on pools behind real mounts: only root can show it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::command::{Shelf, said};
use crate::harness::is_root;
use crate::semantics::{pool, python};

const USER: u32 = 12_345;
const STRANGER: u32 = 54_321;

/// A pool that others than root reach; None, loudly, without root.
fn open_pool() -> Option<Shelf> {
    if !is_root() {
        eprintln!("skipped: only root can act as somebody else");
        return None;
    }
    let shelf = pool()?;
    // Its own directory, which nobody but root may pass through otherwise.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(shelf.directory.path(), open).expect("chmod");
    Some(shelf)
}

/// A command of a user who is in no other group than `group`, run at the top of the mount.
fn as_user(shelf: &Shelf, user: u32, group: u32, command: &str) -> Output {
    let output = Command::new("setpriv")
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={group}"))
        .args(["--clear-groups", "sh", "-c", command])
        .current_dir(shelf.mountpoint())
        .output();
    output.expect("setpriv is part of util-linux")
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("stat").mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// docs/semantics.md: "The kernel checks mode bits."
#[test]
fn writing_takes_privileges_away() {
    let Some(shelf) = open_pool() else { return };
    let path = shelf.mountpoint().join("program");
    fs::write(&path, "x").expect("write");
    for command in ["echo more >> program", "truncate -s 9 program", "fallocate -l 99 program"] {
        chmod(&path, 0o6777);
        let done = as_user(&shelf, USER, USER, command);
        assert!(done.status.success(), "{command}: {}", said(&done));
        assert_eq!(mode(&path), 0o777, "{command}");
        chmod(&path, 0o755);
        assert!(!as_user(&shelf, USER, USER, command).status.success(), "{command}: it may not");
    }
    shelf.umount_cleanly();
}

/// Functions that speak of ACLs: `acl` makes a value of (tag, permissions, id), `kept` reads one.
const ACLS: &str = "import errno, os, struct, sys\n\
    USER_OBJ, USER, GROUP_OBJ, MASK, OTHER, NONE = 1, 2, 4, 16, 32, 2**32 - 1\n\
    ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'\n\
    def acl(*entries): return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *e) for e in entries)\n\
    def kept(path, which):\n\
    \x20   try: value = os.getxattr(path, which, follow_symlinks=False)\n\
    \x20   except OSError as error: return None if error.errno in (errno.ENODATA, errno.ENOTSUP) else error\n\
    \x20   return sorted(struct.iter_unpack('<HHI', value[4:]))\n\
    def full(owner, user, group, mask, other):\n\
    \x20   return (USER_OBJ, owner, NONE), (USER, user, 12345), (GROUP_OBJ, group, NONE), \\\n\
    \x20       (MASK, mask, NONE), (OTHER, other, NONE)\n\
    def same(found, *entries): assert found == sorted(entries), found\n\
    top = sys.argv[1]\n";

/// docs/semantics.md: "POSIX ACLs are kept, checked by the kernel, and inherited from a directory's default ACL"
#[test]
fn acls_are_inherited_and_checked() {
    let Some(shelf) = open_pool() else { return };
    let top = shelf.mountpoint();
    let at = |name: &str| top.join(name);
    for name in ["plain", "given"] {
        fs::create_dir(at(name)).expect("mkdir");
        chmod(&at(name), 0o755);
    }
    let make = format!(
        "{ACLS}os.umask(0o077)\n\
        os.setxattr(top + '/given', DEFAULT, acl(*full(7, 7, 5, 7, 0)))\n\
        for where in 'plain', 'given':\n\
        \x20   os.close(os.open(f'{{top}}/{{where}}/file', os.O_CREAT | os.O_WRONLY, 0o666))\n\
        \x20   os.mkdir(f'{{top}}/{{where}}/sub', 0o777)\n\
        \x20   os.mknod(f'{{top}}/{{where}}/sub/fifo', 0o10664)\n\
        \x20   os.symlink('file', f'{{top}}/{{where}}/link')\n\
        try: os.setxattr(top + '/given/file', DEFAULT, acl(*full(7, 7, 5, 7, 0)))\n\
        except OSError as error: assert error.errno == errno.EACCES, error\n\
        else: sys.exit('a file has a default ACL')\n"
    );
    python(&make, top.as_path());
    let check = format!(
        "{ACLS}for name in 'file', 'sub', 'sub/fifo', 'link':\n\
        \x20   assert kept(f'{{top}}/plain/{{name}}', ACCESS) is None\n\
        same(kept(top + '/given/file', ACCESS), *full(6, 7, 5, 6, 0))\n\
        same(kept(top + '/given/sub', ACCESS), *full(7, 7, 5, 7, 0))\n\
        same(kept(top + '/given/sub', DEFAULT), *full(7, 7, 5, 7, 0))\n\
        same(kept(top + '/given/sub/fifo', ACCESS), *full(6, 7, 5, 6, 0))\n\
        assert kept(top + '/given', ACCESS) is None\n\
        assert kept(top + '/given/link', ACCESS) is None\n\
        assert kept(top + '/given/file', DEFAULT) is None\n\
        assert kept(top + '/plain/sub', DEFAULT) is None\n"
    );
    let modes = || {
        ["file", "sub", "sub/fifo", "link"]
            .map(|name| ["plain", "given"].map(|parent| mode(&at(parent).join(name))))
    };
    for _ in 0..2 {
        python(&check, top.as_path());
        assert_eq!(modes(), [[0o600, 0o660], [0o700, 0o770], [0o600, 0o660], [0o777, 0o777]]);
        let may = |user| as_user(&shelf, user, user, "echo x >> given/file").status.success();
        assert!(may(USER) && !may(STRANGER));
        shelf.umount_cleanly();
        assert!(shelf.mount());
    }
    // chmod takes it from the mask; an ACL sets the mode.
    chmod(&at("given/file"), 0o640);
    let then = format!(
        "{ACLS}same(kept(top + '/given/file', ACCESS), *full(6, 7, 5, 4, 0))\n\
        os.setxattr(top + '/plain/file', ACCESS, acl(*full(6, 6, 0, 2, 4)))\n"
    );
    python(&then, top.as_path());
    let may = |user| as_user(&shelf, user, user, "echo x >> given/file").status.success();
    assert!(!may(USER) && !may(STRANGER));
    assert_eq!(mode(&at("plain/file")), 0o624);
    shelf.umount_cleanly();
}

/// docs/semantics.md: "POSIX ACLs are kept, checked by the kernel"
#[test]
fn an_acl_of_somebody_outside_the_group_takes_sgid_away() {
    let Some(shelf) = open_pool() else { return };
    let path = shelf.mountpoint().join("program");
    fs::write(&path, "x").expect("write");
    let set =
        format!("python3 -c \"{ACLS}os.setxattr(top, ACCESS, acl(*full(7, 5, 5, 5, 5)))\" program");
    for (owner, group, acts_as, left) in
        [(USER, 99, USER, 0o755), (USER, USER, USER, 0o2755), (USER, 99, 0, 0o2755)]
    {
        chown(&path, Some(owner), Some(group)).expect("chown");
        chmod(&path, 0o2750);
        let done = as_user(&shelf, acts_as, acts_as, &set);
        assert!(done.status.success(), "{}", said(&done));
        assert_eq!(mode(&path), left, "of group {group}, set by {acts_as}");
    }
    shelf.umount_cleanly();
}

/// docs/semantics.md: "Mounted by root, the mount honours suid and device nodes"
#[test]
fn suid_and_devices_work() {
    let Some(shelf) = open_pool() else { return };
    let program = shelf.mountpoint().join("id");
    fs::copy("/usr/bin/id", &program).expect("coreutils have it");
    chown(&program, Some(USER), None).expect("chown");
    chmod(&program, 0o4755);
    symlink("id", shelf.mountpoint().join("link")).expect("symlink");
    let ran = Command::new(shelf.mountpoint().join("link")).arg("-u").output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), USER.to_string(), "{}", said(&ran));
    let null = shelf.mountpoint().join("null");
    python("import os, sys; os.mknod(sys.argv[1], 0o20666, os.makedev(1, 3))", &null);
    fs::write(&null, "swallowed").expect("it is /dev/null");
    assert_eq!(fs::read(&null).expect("it reads"), b"");
    shelf.umount_cleanly();
}
