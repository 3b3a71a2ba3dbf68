//! Opening, recovering and closing a pool: where all rooms meet.
//!
//! 1. The disks at hand are assembled; nothing is written (`assemble`).
//! 2. Read-write only: the next epoch is claimed in the labels of N-m members or more [R2]. A crash here
//!    leaves a claimed epoch without a root: the next mount claims the one after.
//! 3. The root is loaded, and the log behind it replayed in memory (`namespace::recover`). What was
//!    acknowledged and is missing makes the pool read-only, and so does anything needed here that is
//!    lost on all copies [I6, R5]: nothing is written then, and what can be found is served, from the
//!    newest root of which the manifest reads. Nobody trusts such a pool with new data, but whatever
//!    is not lost can be copied from it.
//! 4. Recovery writes what was only logged into objects and ends with a checkpoint in the new epoch [I8].
//!    A crash before that is effective leaves the old root and log as they were.
//! 5. The journal opens, empty; background tasks start.
//!
//! Closing: everything becomes objects, a checkpoint, tasks end, the labels say "closed".

use std::ops::RangeInclusive;

use super::assemble::{AssembleError, AssembleOptions, Assembled, Candidate, Mode, assemble};
use super::labels::PoolLabels;
use super::membership::Membership;
use super::platter::{Platter, SeenOpening, Writers};
use super::root_keeper::RootKeeper;
use crate::base::limits::BUFFER_POOL_BYTES;
use crate::base::sync::atomic::AtomicBool;
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, DiskIndex, Epoch, Lsn, PoolUuid, Random, Task, Wait};
use crate::fleet::disk::BufferPool;
use crate::fleet::{
    Access, Checkpoint, FleetError, FoundRoot, Heat, Journal, JournalContext, Members,
    ObjectContext, ObjectStore, Quorum, ReplayFrom, Reports, Space, replay,
};
use crate::format::{Label, MemberEntry, Redundancy, Root};
use crate::namespace::index::IndexOptions;
use crate::namespace::{Fleet, Namespace, NamespaceError, Options, Origin, Recovery, load_root};
use crate::services::reclaim::{Reclaim, ReclaimOptions};
use crate::services::rejoin::Rejoin;
use crate::services::repair::{Repair, RepairOptions, SharedProgress};

/// Where background tasks run: threads, or a simulated world.
pub trait TaskHost: Send + Sync {
    /// Runs a task until it is done or the pool is closed.
    fn run(&self, task: Box<dyn Task>);
    /// Ends all tasks after the step each is in.
    fn stop(&self);
}

/// What a pool stands on.
pub struct Machine {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How to wait.
    pub wait: Arc<dyn Wait>,
    /// Where tasks run.
    pub tasks: Arc<dyn TaskHost>,
    /// Unpredictable in production, the seed in simulation.
    pub random: Random,
}

/// How to open.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Which disks to believe.
    pub assemble: AssembleOptions,
    /// Numbers of the namespace.
    pub namespace: Options,
    /// Memory and sizes of the index; the seed is replaced.
    pub index: IndexOptions,
    /// When space is reclaimed.
    pub reclaim: ReclaimOptions,
    /// When lost disks are given up.
    pub repair: RepairOptions,
    /// Memory for I/O.
    pub buffer_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            assemble: AssembleOptions::default(),
            namespace: Options::default(),
            index: IndexOptions::default(),
            reclaim: ReclaimOptions::default(),
            repair: RepairOptions::default(),
            buffer_bytes: BUFFER_POOL_BYTES,
        }
    }
}

impl OpenOptions {
    /// The index gets a cache of this size, and what it builds in memory is fitted to that.
    pub fn set_index_cache(&mut self, bytes: u64) {
        self.index = IndexOptions::for_cache(bytes);
    }
}

/// Why a pool was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its disks do not make a pool.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// They could not be read or written.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// What they say makes no sense.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// No root leads to the index [I6].
    #[error(
        "where everything is cannot be told, every copy of it is lost on the disks at hand ({0}); \
         nothing was changed: bring missing disks back and mount again (isotherm list shows which are \
         here)"
    )]
    IndexLost(FleetError),
}

impl OpenError {
    /// What is lost, if it is that: what is left may still be read.
    fn loss(self) -> Result<FleetError, OpenError> {
        match self {
            OpenError::Fleet(error) | OpenError::Namespace(NamespaceError::Io(error))
                if error.is_loss() =>
            {
                Ok(error)
            }
            other => Err(other),
        }
    }
}

/// Why a pool that was asked for read-write is read-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOnly {
    /// It is not.
    No,
    /// See [`Mode`].
    Mode(Mode),
    /// Acknowledged batches are missing from the log on every copy [I6].
    LogLost,
    /// The log of more disks than redundancy covers could not be read: what is in it is not known [R1].
    LogUnread,
    /// Of what the newest root names, or what the log needs, more is lost than redundancy covers [I6].
    Damaged,
}

impl ReadOnly {
    /// Why, for people; None if it is not.
    pub fn words(self) -> Option<&'static str> {
        match self {
            ReadOnly::No | ReadOnly::Mode(Mode::ReadWrite) => None,
            ReadOnly::Mode(Mode::Asked) => Some("as asked for"),
            ReadOnly::Mode(Mode::TooManyMissing) => {
                Some("more disks are missing than the redundancy covers; what is there reads")
            }
            ReadOnly::Mode(Mode::CouldBeElsewhere) => Some(
                "the missing disks could be in use on another machine; if they are not, mount with \
                 -o degraded",
            ),
            ReadOnly::LogUnread => Some(
                "more disks than the redundancy covers did not answer while it was mounted, so its \
                 newest changes are not known; unmount it, and mount it again when they answer",
            ),
            ReadOnly::LogLost => Some(
                "acknowledged batches are missing from the log on every copy; what reads is good, copy \
                 it to another pool",
            ),
            ReadOnly::Damaged => Some(
                "more is lost than redundancy covers (the log says what); what reads is good, copy it to \
                 another pool",
            ),
        }
    }

    /// Whether nobody asked for it.
    pub fn is_trouble(self) -> bool {
        self.words().is_some() && self != ReadOnly::Mode(Mode::Asked)
    }
}

/// A pool that is open.
pub struct OpenPool {
    /// Its files.
    pub namespace: Namespace,
    /// Its members.
    pub members: Arc<Members>,
    /// Free space of its disks.
    pub space: Arc<Space>,
    /// Expected waits.
    pub heat: Arc<Heat>,
    /// What was noticed and waits to be acted upon.
    pub reports: Arc<Reports>,
    /// Its name and identity, as of opening.
    pub label: Label,
    /// Whether it may be written to, and why not.
    pub read_only: ReadOnly,
    /// Members that were missing when it was opened.
    pub missing: Vec<DiskIndex>,
    /// What the root says of its members: sizes and serial numbers, of the missing ones too.
    pub entries: Vec<MemberEntry>,
    /// It had not been closed before: there was a crash.
    pub was_unclean: bool,
    /// Batches that were replayed.
    pub replayed: usize,
    /// Batches that had been acknowledged and are on no disk at hand [I6].
    pub gaps: Vec<RangeInclusive<u64>>,
    /// How far repair is.
    pub repair: SharedProgress,
    /// For disks that come and go; None if it is read-only.
    pub membership: Option<Arc<Membership>>,
    /// What its disks have at fixed places, for checks.
    pub platter: Platter,
    pub(super) journal: Option<Arc<Journal>>,
    labels: Arc<PoolLabels>,
    tasks: Arc<dyn TaskHost>,
}

/// The rooms of the fleet, being put together.
struct Parts {
    access: Access,
    members: Arc<Members>,
    space: Arc<Space>,
    heat: Arc<Heat>,
    objects: Arc<ObjectStore>,
}

/// What opening came to: the part of [`OpenPool`] that differs from try to try.
struct Opened {
    parts: Parts,
    namespace: Namespace,
    journal: Option<Arc<Journal>>,
    replayed: usize,
    gaps: Vec<RangeInclusive<u64>>,
    thin: Vec<(Lsn, usize)>,
    repair: SharedProgress,
    membership: Option<Arc<Membership>>,
    writers: Option<Writers>,
}

/// A pool that may be written to.
struct Running {
    namespace: Namespace,
    journal: Arc<Journal>,
    repair: SharedProgress,
    membership: Arc<Membership>,
    writers: Writers,
}

/// Opens the pool that these disks are.
pub fn open(
    mut machine: Machine,
    candidates: Vec<Candidate>,
    options: OpenOptions,
) -> Result<OpenPool, OpenError> {
    let access = Access {
        clock: machine.clock.clone(),
        wait: machine.wait.clone(),
        buffers: BufferPool::new(options.buffer_bytes, machine.wait.clone()),
    };
    let reports = Arc::new(Reports::new());
    let assembled = assemble(&access, candidates, &options.assemble, reports.clone())?;
    let (opened, read_only) = if assembled.mode == Mode::ReadWrite {
        match open_to_write(&mut machine, &access, &assembled, &options) {
            Ok(Ok(opened)) => (opened, ReadOnly::No),
            Ok(Err(reason)) => open_to_read(&mut machine, &access, &assembled, &options, reason)?,
            Err(error) => {
                let loss = error.loss()?;
                log::error!("more is lost than redundancy covers, only reading is left: {loss}");
                open_to_read(&mut machine, &access, &assembled, &options, ReadOnly::Damaged)?
            }
        }
    } else {
        let mode = ReadOnly::Mode(assembled.mode);
        open_to_read(&mut machine, &access, &assembled, &options, mode)?
    };
    let platter = Platter {
        labels: assembled.labels.clone(),
        namespace: opened.namespace.clone(),
        writers: opened.writers,
        seen: SeenOpening { spoilt: assembled.spoilt, thin: opened.thin },
    };
    Ok(OpenPool {
        platter,
        namespace: opened.namespace,
        members: opened.parts.members,
        space: opened.parts.space,
        heat: opened.parts.heat,
        reports,
        label: assembled.label,
        read_only,
        missing: assembled.missing,
        entries: assembled.root.members,
        was_unclean: assembled.unclean,
        replayed: opened.replayed,
        gaps: opened.gaps,
        repair: opened.repair,
        membership: opened.membership,
        journal: opened.journal,
        labels: assembled.labels,
        tasks: machine.tasks,
    })
}

/// Steps 2 to 5. A reason to be read-only if acknowledged batches are missing, or could be: nothing was
/// written but the claim.
fn open_to_write(
    machine: &mut Machine,
    access: &Access,
    assembled: &Assembled,
    options: &OpenOptions,
) -> Result<Result<Opened, ReadOnly>, OpenError> {
    let claim = assembled.labels.claim(machine.random.next_u64(), options.assemble.machine_id)?;
    let root = &assembled.root;
    let parts = parts(access, assembled, claim.epoch, machine, false);
    let mut log = replay(&parts.access, &parts.members, &ReplayFrom::root(root));
    if !log.is_sound(parts.members.parity(), &assembled.participants) {
        let whole = log.gaps.is_empty();
        return Ok(Err(if whole { ReadOnly::LogUnread } else { ReadOnly::LogLost }));
    }
    let mut recovery = recovery(machine, &parts, root, options, false)?;
    for index in 0..log.len() {
        recovery.replay(log.lsn(index), &log.payload(index)?)?;
        log.give_up(index);
    }
    let Running { namespace, journal, repair, membership, writers } =
        go_on(machine, &parts, assembled, recovery, &log.end, claim, options)?;
    Ok(Ok(Opened {
        parts,
        namespace,
        journal: Some(journal),
        replayed: log.len(),
        gaps: Vec::new(),
        thin: Vec::new(),
        repair,
        membership: Some(membership),
        writers: Some(writers),
    }))
}

/// Step 3 without writing anything: of the newest root that still leads somewhere, everything that can
/// be found [I6]. `why` says what keeps the pool from being written to; going back to an older root
/// outweighs it. An error if no root leads anywhere: the index is lost.
fn open_to_read(
    machine: &mut Machine,
    access: &Access,
    assembled: &Assembled,
    options: &OpenOptions,
    why: ReadOnly,
) -> Result<(Opened, ReadOnly), OpenError> {
    let newest = &assembled.root;
    let loss = match look_from(machine, access, assembled, options, newest) {
        Ok(opened) => return Ok((opened, why)),
        Err(error) => error.loss()?,
    };
    let name = |root: &Root| format!("checkpoint {} of epoch {}", root.sequence, root.epoch);
    log::error!("{} is lost: {loss}", name(newest));
    for root in older_roots(&assembled.roots, newest) {
        match look_from(machine, access, assembled, options, root) {
            Ok(opened) => {
                log::error!("what is shown is as old as {}, and the log behind it", name(root));
                return Ok((opened, ReadOnly::Damaged));
            }
            Err(error) => log::error!("{} is lost: {}", name(root), error.loss()?),
        }
    }
    Err(OpenError::IndexLost(loss))
}

fn look_from(
    machine: &mut Machine,
    access: &Access,
    assembled: &Assembled,
    options: &OpenOptions,
    root: &Root,
) -> Result<Opened, OpenError> {
    let epoch = assembled.labels.current().epoch;
    let parts = parts(access, assembled, epoch, machine, true);
    let mut log = replay(&parts.access, &parts.members, &ReplayFrom::root(root));
    let mut recovery = recovery(machine, &parts, root, options, true)?;
    for index in 0..log.len() {
        let lsn = log.lsn(index);
        match log.payload(index) {
            Err(error) if error.is_loss() => log::error!("batch {lsn} is lost: {error}"),
            payload => recovery.replay(lsn, &payload?)?,
        }
        log.give_up(index);
    }
    let namespace = recovery.finish_read_only()?;
    let need = assembled.participants.len().min(parts.members.parity() + 1);
    Ok(Opened {
        parts,
        namespace,
        journal: None,
        replayed: log.len(),
        thin: log.thin(need),
        gaps: log.gaps,
        repair: SharedProgress::default(),
        membership: None,
        writers: None,
    })
}

/// The roots before `newest`, each once, from new to old.
fn older_roots<'a>(found: &'a [FoundRoot], newest: &Root) -> Vec<&'a Root> {
    let key = |root: &Root| (root.epoch, root.sequence);
    let mut roots: Vec<&Root> = found.iter().map(|found| &found.root).collect();
    roots.retain(|root| key(root) < key(newest));
    roots.sort_by_key(|root| std::cmp::Reverse(key(root)));
    roots.dedup_by_key(|root| key(root));
    roots
}

/// The root is loaded: a recovery that has replayed nothing yet.
fn recovery(
    machine: &mut Machine,
    parts: &Parts,
    root: &Root,
    options: &OpenOptions,
    read_only: bool,
) -> Result<Recovery, OpenError> {
    let mut index_options = options.index.clone();
    index_options.seed = machine.random.next_u64();
    let index = load_root(&parts.objects, index_options, root, read_only)?;
    let fleet = Fleet {
        clock: machine.clock.clone(),
        wait: machine.wait.clone(),
        members: parts.members.clone(),
        space: parts.space.clone(),
        objects: parts.objects.clone(),
        index,
        redundancy: root.config.redundancy,
    };
    let mut namespace_options = options.namespace.clone();
    namespace_options.read_only |= read_only;
    let chains = root.manifest.iter().chain(&root.space).map(|link| link.record.clone()).collect();
    Ok(Recovery::new(fleet, namespace_options, origin(root), chains))
}

fn origin(root: &Root) -> Origin {
    Origin {
        name_key: root.name_hash_key,
        ino_lease: root.ino_lease.0,
        inodes: root.inodes,
        lsn: root.replay_lsn,
    }
}

fn parts(
    access: &Access,
    assembled: &Assembled,
    epoch: Epoch,
    machine: &mut Machine,
    read_only: bool,
) -> Parts {
    let members = assembled.members.clone();
    let space = Arc::new(Space::new());
    for member in members.all() {
        space.add_disk(member.index, member.layout.data_units, member.layout.group_units);
    }
    let heat = Arc::new(Heat::new(access.clock.clone(), members.clone()));
    let objects = Arc::new(ObjectStore::new(ObjectContext {
        clock: access.clock.clone(),
        wait: access.wait.clone(),
        random: machine.random.fork(),
        members: members.clone(),
        space: space.clone(),
        heat: heat.clone(),
        buffers: access.buffers.clone(),
        epoch,
        read_only,
    }));
    Parts { access: access.clone(), members, space, heat, objects }
}

/// Steps 4 and 5.
fn go_on(
    machine: &mut Machine,
    parts: &Parts,
    assembled: &Assembled,
    recovery: Recovery,
    end: &crate::fleet::Mark,
    claim: crate::format::EpochClaim,
    options: &OpenOptions,
) -> Result<Running, OpenError> {
    let quorum = Arc::new(Quorum::new(parts.members.clone(), assembled.labels.clone()));
    let checkpoint = Checkpoint::open(
        parts.access.clone(),
        quorum.clone(),
        &assembled.roots,
        Some(&assembled.root),
    );
    let highest = assembled.roots.iter().map(|found| found.root.sequence).max().unwrap_or(0);
    let keeper = Arc::new(RootKeeper::new(
        checkpoint,
        parts.members.clone(),
        assembled.root.clone(),
        claim,
        highest,
        end.clone(),
    ));
    let (namespace, checkpointer) = recovery.finish(keeper.clone())?;
    let journal = Arc::new(Journal::open(
        JournalContext {
            access: parts.access.clone(),
            quorum,
            heat: parts.heat.clone(),
            pool: assembled.label.pool,
            epoch: claim.epoch,
            epoch_id: claim.id,
        },
        &keeper.last_mark(),
    ));
    keeper.attach(journal.clone());
    namespace.start(journal.clone())?;
    for task in namespace.tasks() {
        machine.tasks.run(task);
    }
    machine.tasks.run(checkpointer);
    let clock = &machine.clock;
    let reclaim = Reclaim::new(namespace.clone(), clock.clone(), options.reclaim);
    machine.tasks.run(Box::new(reclaim));
    machine.tasks.run(Box::new(Rejoin::new(namespace.clone(), clock.clone())));
    let writers = Writers { keeper: keeper.clone(), journal: journal.clone() };
    let membership = Arc::new(Membership {
        access: parts.access.clone(),
        members: parts.members.clone(),
        space: parts.space.clone(),
        labels: assembled.labels.clone(),
        keeper,
        journal: journal.clone(),
        namespace: namespace.clone(),
        random: Mutex::new(machine.random.fork()),
        busy: AtomicBool::new(false),
        removing: Mutex::new(None),
    });
    let (members, clock) = (parts.members.clone(), clock.clone());
    let removal = membership.clone();
    let (repair, progress) =
        Repair::new(namespace.clone(), members, clock, removal, options.repair);
    machine.tasks.run(Box::new(repair));
    if assembled.both_slots_spoilt() {
        // Recovery's root went to one of them.
        namespace.want_checkpoint();
    }
    Ok(Running { namespace, journal, repair: progress, membership, writers })
}

impl OpenPool {
    /// The pool's identity.
    pub fn uuid(&self) -> PoolUuid {
        self.label.pool
    }

    /// The pool's default redundancy.
    pub fn redundancy(&self) -> Redundancy {
        self.members.redundancy()
    }

    /// How full the log is, in percent; 0 if the pool is read-only.
    pub fn log_percent(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.fill_percent())
    }

    /// As `log_percent` and `suspended`, for somebody who outlives this value's borrow.
    pub fn log_state(&self) -> Box<dyn Fn() -> (u64, bool) + Send + Sync> {
        let journal = self.journal.clone();
        Box::new(move || {
            let journal = journal.as_ref();
            (
                journal.map_or(0, |journal| journal.fill_percent()),
                journal.is_some_and(|journal| journal.suspended()),
            )
        })
    }

    /// Whether too few disks take writes, so that writers wait [R11].
    pub fn suspended(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.suspended())
    }

    /// Closes the pool: when this returns Ok it is clean, and everything written to it survives [I1].
    /// No operation may run any more.
    pub fn close(self) -> Result<(), NamespaceError> {
        if self.read_only != ReadOnly::No {
            self.tasks.stop();
            return Ok(());
        }
        let result = self.namespace.close();
        self.tasks.stop();
        if result.is_ok() {
            self.labels.close();
        }
        result
    }
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<OpenPool>();
};
