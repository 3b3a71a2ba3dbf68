//! Every flag, declared once.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Pools raw disks of any size into one filesystem that survives the loss of some of them.
#[derive(Parser, Debug)]
#[command(name = "isotherm", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Make a pool of disks
    Create(Create),
    /// Mount a pool
    Mount(Mount),
    /// Unmount a pool; returns when it is clean
    #[command(visible_alias = "unmount")]
    Umount(Umount),
    /// Make everything written so far durable (syncfs(2) never reaches a FUSE daemon)
    Sync(Sync),
    /// Show the pools on this machine, mounted or not
    List(List),
    /// Show how pools are; exits with 1 if one is not healthy
    Status(Status),
    /// Check that everything agrees and is there; mends it if mounted, exits with 4 if something was found
    Check(Check),
    /// Show, add, replace, remove the disks of a mounted pool
    #[command(subcommand)]
    Disk(Disk),
    /// Show what is on a disk
    Inspect(Inspect),
    /// Take disks out of use: no pool takes them any more
    Wipe(Wipe),
    /// Show the version of the program and of the format on disk
    Version,
    /// Mount a filesystem that does nothing: what FUSE itself costs
    #[command(hide = true)]
    BenchNull(BenchNull),
}

#[derive(Args, Debug)]
pub(super) struct Create {
    /// Name of the pool: 1 to 63 bytes, no slash
    pub(super) name: String,
    /// Disks: block devices, or regular files for trials
    #[arg(required = true)]
    pub(super) devices: Vec<PathBuf>,
    /// ec:K+M (K data and M parity shards), replica:N (N copies), or none (one disk, no protection);
    /// default: what the table of --dry-run marks
    #[arg(long, value_name = "WHAT")]
    pub(super) redundancy: Option<String>,
    /// Which disks share an enclosure, a controller or a cable: an object has at most M shards in each
    /// where that is possible. Once for each; instead of what is detected; `none`: all stand alone
    #[arg(long = "enclosure", value_name = "NAME=DISK,...")]
    pub(super) enclosures: Vec<String>,
    /// Overwrite what is on the disks
    #[arg(long)]
    pub(super) force: bool,
    /// Only show the choices: usable bytes, and what each survives
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct Mount {
    /// The pool's name, UUID=..., or its disks; then the mount point
    #[arg(required = true, num_args = 2.., value_names = ["NAME|DEVICE", "MOUNTPOINT"])]
    pub(super) what: Vec<String>,
    /// Options, comma-separated; see docs/options.md
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub(super) options: Vec<String>,
    /// Stay in the foreground and log to standard error, as systemd wants it
    #[arg(long)]
    pub(super) foreground: bool,
    /// Change nothing, also on the disks
    #[arg(long)]
    pub(super) read_only: bool,
    /// Run this shell command for each serious event; $ISOTHERM_POOL and $ISOTHERM_EVENT tell which
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_event: Option<String>,
    /// Where the daemon logs: syslog, stderr, or a file
    #[arg(long, value_name = "WHERE")]
    pub(super) log: Option<String>,
    /// Seconds to wait for disks that are not there
    #[arg(long, value_name = "SECONDS")]
    pub(super) wait: Option<u64>,
    /// Take a pool that is marked as in use by another machine
    #[arg(long)]
    pub(super) force: bool,
    /// The process that the mount command starts: tells it when the mount is ready
    #[arg(long, hide = true)]
    pub(super) daemon: bool,
}

#[derive(Args, Debug)]
pub(super) struct Umount {
    /// Mount point or name of the pool
    pub(super) target: String,
    /// Take it from sight at once; it is closed when its last user has gone. Does not wait
    #[arg(short, long)]
    pub(super) lazy: bool,
}

#[derive(Args, Debug)]
pub(super) struct Sync {
    /// Mount point or name of the pool; a path inside a mount is as good
    pub(super) target: String,
}

#[derive(Args, Debug)]
pub(super) struct List {
    /// Where to look; default: all block devices
    pub(super) devices: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Status {
    /// Mount point or name; default: all pools that are mounted
    pub(super) targets: Vec<String>,
    /// For programs: one JSON object per pool in an array
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct Check {
    /// Mount point, name or UUID of the pool; or its disks, if it is not mounted
    #[arg(required = true, value_name = "POOL|DEVICE")]
    pub(super) what: Vec<String>,
    /// Read every shard too, not only the index
    #[arg(long)]
    pub(super) deep: bool,
    /// For programs: one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct Inspect {
    #[command(subcommand)]
    pub(super) what: Structure,
}

#[derive(Subcommand, Debug)]
pub(super) enum Structure {
    /// Who the disk is, and which pool it belongs to: all copies of the label
    Label {
        /// The disk
        device: PathBuf,
    },
    /// Both checkpoint roots
    Root {
        /// The disk
        device: PathBuf,
    },
    /// The entries in the journal ring
    Journal {
        /// The disk
        device: PathBuf,
    },
    /// Shards in the data area: one line each, or all about the shards of one object
    Object {
        /// The disk
        device: PathBuf,
        /// The object's id, as the list shows it
        id: Option<String>,
    },
    /// Where everything lies on a disk
    Layout {
        /// The disk, or a size such as 4T for one that is not there
        device: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct Wipe {
    /// Disks with a label
    #[arg(required = true)]
    pub(super) devices: Vec<PathBuf>,
    /// Do it; without, only what would be done is shown
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Args, Debug)]
pub(super) struct BenchNull {
    /// Where to mount
    pub(super) mountpoint: PathBuf,
    /// Options, comma-separated, as for mount
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub(super) options: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command)
    }

    #[test]
    fn the_declaration_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_manual_parse() {
        for line in [
            "isotherm create tank /dev/sdb /dev/sdc --redundancy ec:6+2 --dry-run",
            "isotherm create --force tank a b c",
            "isotherm mount tank /mnt",
            "isotherm mount /dev/sdb /dev/sdc /mnt -o noatime,cache=1G --foreground --read-only",
            "isotherm umount /mnt",
            "isotherm unmount --lazy tank",
            "isotherm sync /mnt",
            "isotherm list",
            "isotherm status tank --json",
            "isotherm check tank --deep --json",
            "isotherm check /dev/sdb /dev/sdc",
            "isotherm inspect label /dev/sdb",
            "isotherm inspect object /dev/sdb 1.2f",
            "isotherm inspect layout 4T",
            "isotherm wipe /dev/sdb --yes",
            "isotherm version",
            "isotherm bench-null /mnt",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn a_mount_needs_a_mount_point() {
        assert!(parse("isotherm mount tank").is_err());
        let Ok(Command::Mount(mount)) = parse("isotherm mount a b /mnt") else {
            panic!("it is a mount");
        };
        assert_eq!(mount.what, ["a", "b", "/mnt"]);
    }
}

/// DISK: its number in the pool, path, serial number, by-id name, or UUID.
#[derive(Subcommand, Debug)]
pub(super) enum Disk {
    /// Show the disks of a pool
    List {
        /// The pool: its name, UUID or mount point
        pool: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a disk a member; it takes its share of what is written from now on
    Add {
        /// The pool: its name, UUID or mount point
        pool: String,
        /// The new disk
        device: PathBuf,
        /// Overwrite what is on it
        #[arg(long)]
        force: bool,
    },
    /// Put a disk in the place of another one, present or lost
    Replace {
        /// The pool: its name, UUID or mount point
        pool: String,
        /// Who leaves
        disk: String,
        /// The new disk
        device: PathBuf,
        /// Overwrite what is on it
        #[arg(long)]
        force: bool,
        /// Return at once; `isotherm status` shows how far it is
        #[arg(long)]
        no_wait: bool,
    },
    /// Move what is on a disk to the others, then let it go
    Remove {
        /// The pool: its name, UUID or mount point
        pool: String,
        /// Who leaves
        disk: String,
        /// Return at once; `isotherm status` shows how far it is
        #[arg(long)]
        no_wait: bool,
    },
    /// Stop using a disk, so that it can be unplugged; disk online takes it back
    Offline {
        /// The pool: its name, UUID or mount point
        pool: String,
        /// Which disk
        disk: String,
    },
    /// Take a disk back that was away, was failed or taken out; let one stay that was to be removed
    Online {
        /// The pool: its name, UUID or mount point
        pool: String,
        /// Which disk
        disk: String,
    },
}
