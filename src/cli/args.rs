//! Every subcommand and flag, declared once; help is made from this.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Pools raw disks of any size into one POSIX filesystem: real-time erasure coding, no write hole,
/// grow and shrink by one disk.
#[derive(Parser, Debug)]
#[command(name = "isotherm", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Log messages of this level and above: error, warn, info, debug, trace.
    #[arg(long = "log", global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a pool of disks. What is on them is lost.
    Create(Create),
    /// Mount a pool.
    Mount(Mount),
    /// Unmount a pool and wait until it is clean.
    Umount(Umount),
    /// Make everything written to a mounted pool durable.
    Sync(Sync),
    /// List the pools whose disks are here.
    List(List),
    /// Show how a pool is. Exit code 1 if it is not healthy.
    Status(Status),
    /// Look at what is on a disk.
    Inspect(Inspect),
    /// Make disks forget that they belong to a pool.
    Wipe(Wipe),
    /// Print the version.
    Version,
    /// Mount a file system that stores nothing, to measure what FUSE alone costs.
    #[command(hide = true)]
    BenchNull(BenchNull),
}

/// `isotherm create`
#[derive(clap::Args, Debug)]
pub struct Create {
    /// Name of the pool.
    pub name: String,
    /// Block devices, or regular files for trials.
    #[arg(required = true)]
    pub devices: Vec<PathBuf>,
    /// `ec:6+2`, `replica:3` or `none` (one disk only). By default the one that the table recommends.
    #[arg(long, value_name = "ec:K+M|replica:R|none")]
    pub redundancy: Option<String>,
    /// Take disks that have something on them.
    #[arg(long)]
    pub force: bool,
    /// Print the choices, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `isotherm mount`
#[derive(clap::Args, Debug)]
pub struct Mount {
    /// A pool's name or UUID, or its devices; and last the mount point.
    #[arg(required = true, num_args = 2.., value_name = "NAME|DEVICE... MOUNTPOINT")]
    pub words: Vec<PathBuf>,
    /// Options, separated by commas; see docs/options.md.
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Stay in the foreground.
    #[arg(long, short = 'f')]
    pub foreground: bool,
    /// Allow no changes.
    #[arg(long, short = 'r')]
    pub read_only: bool,
    /// Run this through /bin/sh at each serious event; ISOTHERM_POOL and ISOTHERM_EVENT say what.
    #[arg(long, value_name = "COMMAND")]
    pub on_event: Option<String>,
    /// Write the daemon's messages to this file.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// We are the daemon that `mount` started.
    #[arg(long, hide = true)]
    pub daemon_child: bool,
}

/// `isotherm umount`
#[derive(clap::Args, Debug)]
pub struct Umount {
    /// Where it is mounted, or the pool's name.
    pub target: PathBuf,
    /// Detach it from sight at once, and end it when the last user has gone.
    #[arg(long, short = 'l')]
    pub lazy: bool,
}

/// `isotherm sync`
#[derive(clap::Args, Debug)]
pub struct Sync {
    /// Where it is mounted, or the pool's name.
    pub target: PathBuf,
}

/// `isotherm list`
#[derive(clap::Args, Debug)]
pub struct List {
    /// Where to look; every block device by default.
    pub devices: Vec<PathBuf>,
}

/// `isotherm status`
#[derive(clap::Args, Debug)]
pub struct Status {
    /// Pools by name, UUID or mount point; all mounted ones by default.
    pub pools: Vec<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `isotherm inspect`
#[derive(clap::Args, Debug)]
pub struct Inspect {
    /// What to look at.
    #[command(subcommand)]
    pub what: InspectWhat,
}

/// What `inspect` can show.
#[derive(Subcommand, Debug)]
pub enum InspectWhat {
    /// The label's three copies.
    Label {
        /// Disk.
        device: PathBuf,
    },
    /// The checkpoint roots in both slots.
    Root {
        /// Disk.
        device: PathBuf,
    },
    /// The entries in the journal ring.
    Journal {
        /// Disk.
        device: PathBuf,
    },
    /// The header of the shard at a unit of the data area.
    Object {
        /// Disk.
        device: PathBuf,
        /// 4 KiB units from the start of the data area.
        unit: u64,
    },
    /// Where everything is on a disk.
    Layout {
        /// Disk.
        device: PathBuf,
    },
}

/// `isotherm wipe`
#[derive(clap::Args, Debug)]
pub struct Wipe {
    /// Disks.
    #[arg(required = true)]
    pub devices: Vec<PathBuf>,
    /// Really do it: what is on the pool is lost with its last disks.
    #[arg(long)]
    pub force: bool,
}

/// `isotherm bench-null`
#[derive(clap::Args, Debug)]
pub struct BenchNull {
    /// Where to mount.
    pub mountpoint: PathBuf,
}
