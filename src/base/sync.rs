//! Locks, atomics and channels: std's, or shuttle's when schedules are explored.
//!
//! No other file may name `std::sync`'s locks or atomics (tidy checks). A poisoned lock is not a
//! state we live in: a panic ends the process (`panic = "abort"`), so `lock()` returns the guard.

#[cfg(feature = "shuttle")]
use shuttle::sync as imp;
#[cfg(not(feature = "shuttle"))]
use std::sync as imp;

pub use imp::atomic;
pub use imp::{Arc, Weak};
pub use std::sync::OnceLock;

/// A mutual-exclusion lock whose `lock` cannot fail.
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

/// Held while a `Mutex` is locked.
pub type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    /// A new, unlocked lock.
    pub fn new(value: T) -> Mutex<T> {
        Mutex(imp::Mutex::new(value))
    }

    /// Locks; [R23] never held across a wait for a disk.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("a panic ends the process, so no lock is ever poisoned")
    }

    /// The value, through exclusive access: no locking needed.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("a panic ends the process, so no lock is ever poisoned")
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.0.into_inner().expect("a panic ends the process, so no lock is ever poisoned")
    }
}

/// A reader-writer lock whose methods cannot fail.
#[derive(Debug, Default)]
pub struct RwLock<T>(imp::RwLock<T>);

/// Held while an `RwLock` is read.
pub type RwLockReadGuard<'a, T> = imp::RwLockReadGuard<'a, T>;
/// Held while an `RwLock` is written.
pub type RwLockWriteGuard<'a, T> = imp::RwLockWriteGuard<'a, T>;

impl<T> RwLock<T> {
    /// A new, unlocked lock.
    pub fn new(value: T) -> RwLock<T> {
        RwLock(imp::RwLock::new(value))
    }

    /// Locks for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().expect("a panic ends the process, so no lock is ever poisoned")
    }

    /// Locks for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().expect("a panic ends the process, so no lock is ever poisoned")
    }
}

/// A condition variable. Only `base::wait` parks on one.
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

impl Condvar {
    /// A new one.
    pub fn new() -> Condvar {
        Condvar(imp::Condvar::new())
    }

    /// Wakes every waiter.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Parks until notified.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).expect("a panic ends the process, so no lock is ever poisoned")
    }

    /// Parks until notified or `timeout` has passed.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: std::time::Duration,
    ) -> MutexGuard<'a, T> {
        self.0
            .wait_timeout(guard, timeout)
            .expect("a panic ends the process, so no lock is ever poisoned")
            .0
    }
}
