//! Plain `umount` should wait for a clean pool too: util-linux calls `umount.TYPE` in /sbin for a mount
//! of type TYPE. A daemon that mounts as root installs that helper, unless a package did.

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
}
