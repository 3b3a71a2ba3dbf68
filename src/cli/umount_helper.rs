//! Plain `umount` should wait for a clean pool too [R27]: util-linux calls `umount.TYPE` in /sbin for a
//! mount of type TYPE. A daemon that mounts as root installs that helper, unless a package did.
//!
//! For an absolute path umount(8) does not look at mountinfo, and with what statfs tells it, looks for
//! a helper for all of FUSE. Unless its own table, /run/mount/utab, has a line for the mount point: then
//! it reads mountinfo, and the line's `uhelper=`. So the daemon adds that line; umount(8) takes it away,
//! or the daemon when it ends. One that is left over does no harm: it counts only for a mount that has
//! the same source and target.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What umount(8) looks for.
const HELPER: &str = "/sbin/umount.fuse.isotherm";
/// The helper, with a place for the program's path.
const SCRIPT: &str = include_str!("../../mount-scripts/umount.fuse.isotherm");
/// The line of the script that names the program.
const PROGRAM_LINE: &str = "program=isotherm";
/// Stands in helpers that a daemon wrote, and that it may therefore replace.
const MARK: &str = "# Written by `isotherm mount`, which replaces it.";

/// Makes sure that plain `umount` finds a helper that works. Says in the log if it cannot.
pub(super) fn install() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return log::warn!("no umount helper: {error}"),
    };
    match install_at(Path::new(HELPER), &program) {
        Ok(true) => log::info!("{HELPER} was installed: plain umount waits for a clean pool"),
        Ok(false) => {}
        Err(error) => log::warn!(
            "{HELPER} cannot be installed ({error}): plain umount returns before the pool is clean; \
             use isotherm umount"
        ),
    }
}

/// Where umount(8) keeps what the kernel does not know of mounts.
const TABLE: &str = "/run/mount/utab";
/// The helper's name without the beginning that all have.
const UHELPER: &str = "uhelper=fuse.isotherm";

/// Tells umount(8) of the mount at `mountpoint`.
pub(super) fn register(source: &str, mountpoint: &Path) {
    let line = format!(
        "SRC={} TARGET={} ROOT=/ OPTS={UHELPER}\n",
        mangle(source),
        mangle(&mountpoint.display().to_string())
    );
    change_table(mountpoint, &line);
}

/// The mount at `mountpoint` is gone.
pub(super) fn unregister(mountpoint: &Path) {
    change_table(mountpoint, "");
}

fn change_table(mountpoint: &Path, line: &str) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    if let Err(error) = change_table_at(Path::new(TABLE), mountpoint, line) {
        log::warn!(
            "{TABLE} cannot be changed ({error}): plain umount may return before the pool is clean"
        );
    }
}

/// Takes our lines for `mountpoint` out of the table and adds `line`; under the lock that libmount
/// takes, and by renaming, as it does.
fn change_table_at(table: &Path, mountpoint: &Path, line: &str) -> io::Result<()> {
    if let Some(directory) = table.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let with = |end: &str| {
        let mut path = table.as_os_str().to_owned();
        path.push(end);
        PathBuf::from(path)
    };
    let lock = File::options().create(true).append(true).open(with(".lock"))?;
    lock.lock()?;
    let old = match std::fs::read_to_string(table) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let target = format!(" TARGET={} ", mangle(&mountpoint.display().to_string()));
    let is_ours = |line: &&str| line.contains(&target) && line.contains(UHELPER);
    let mut new = String::new();
    for other in old.lines().filter(|line| !is_ours(line)) {
        new.push_str(other);
        new.push('\n');
    }
    new.push_str(line);
    if new == old {
        return Ok(());
    }
    let fresh = with(&format!(".{}", std::process::id()));
    std::fs::write(&fresh, new)?;
    std::fs::rename(&fresh, table)
}

/// As libmount writes words: what would end them, in octal.
fn mangle(word: &str) -> String {
    let mut mangled = String::with_capacity(word.len());
    for c in word.chars() {
        match c {
            ' ' | '\t' | '\n' | '\\' | '#' => {
                write!(mangled, "\\{:03o}", c as u32).expect("writing to a String cannot fail");
            }
            c => mangled.push(c),
        }
    }
    mangled
}

/// True if it was written.
fn install_at(helper: &Path, program: &Path) -> io::Result<bool> {
    let wanted = script_for(program);
    match std::fs::read_to_string(helper) {
        Ok(found) if found == wanted => return Ok(false),
        // A package's, or the administrator's.
        Ok(found) if !found.contains(MARK) => return Ok(false),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Under another name first: an umount that runs just now must not find half a script.
    let mut fresh = helper.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let written = std::fs::write(&fresh, wanted)
        .and_then(|()| std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&fresh, helper));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written.map(|()| true)
}

fn script_for(program: &Path) -> String {
    let quoted = program.display().to_string().replace('\'', "'\\''");
    SCRIPT.replacen(PROGRAM_LINE, &format!("{MARK}\nprogram='{quoted}'"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_written_once_and_replaced_only_if_it_is_ours() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let helper = directory.path().join("umount.fuse.isotherm");
        let program = Path::new("/opt/it's/isotherm");
        assert!(install_at(&helper, program).expect("written"));
        assert!(!install_at(&helper, program).expect("it is there"));
        let text = std::fs::read_to_string(&helper).expect("read");
        assert!(
            text.starts_with("#!/bin/sh\n") && text.contains("program='/opt/it'\\''s/isotherm'")
        );
        assert!(install_at(&helper, Path::new("/usr/bin/isotherm")).expect("moved"));
        std::fs::write(&helper, "#!/bin/sh\nexit 0\n").expect("write");
        assert!(!install_at(&helper, program).expect("somebody else's stays"));
        let mode = std::fs::metadata(&helper).expect("stat").permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
        assert_eq!(std::fs::read_dir(directory.path()).expect("list").count(), 1);
    }

    #[test]
    fn the_table_keeps_others_lines_and_one_of_ours() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let table = directory.path().join("mount").join("utab");
        let place = Path::new("/mnt/my pool");
        let line = format!("SRC=tank TARGET={} ROOT=/ OPTS={UHELPER}\n", mangle("/mnt/my pool"));
        change_table_at(&table, place, &line).expect("made");
        let other = "SRC=x TARGET=/mnt/my\\040pool ROOT=/ OPTS=user=me\n";
        std::fs::write(&table, format!("{other}{line}")).expect("write");
        change_table_at(&table, place, &line).expect("again");
        let text = || std::fs::read_to_string(&table).expect("read");
        assert_eq!(text(), format!("{other}{line}"));
        change_table_at(&table, place, "").expect("gone");
        assert_eq!(text(), other);
        assert!(line.contains("/mnt/my\\040pool"));
    }
}
