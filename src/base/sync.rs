//! Locks, atomics and channels: std's, or shuttle's when schedules are explored.
//!
//! No other file may name `std::sync`'s locks or atomics (tidy checks). A poisoned lock is not a
//! state we live in: a panic ends the process (`panic = "abort"`), so `lock()` returns the guard.

use std::ops::{Deref, DerefMut};

#[cfg(feature = "shuttle")]
use shuttle::sync as imp;
#[cfg(not(feature = "shuttle"))]
use std::sync as imp;

pub use imp::atomic;
pub use imp::{Arc, Weak};
pub use std::sync::OnceLock;

/// For tests of schedules: threads, and what runs them on many schedules.
#[cfg(all(test, feature = "shuttle"))]
pub use shuttle::{check_random, thread};
#[cfg(all(test, not(feature = "shuttle")))]
pub use std::thread;

#[cfg(debug_assertions)]
thread_local! {
    static HELD: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Counts the guards that the current thread holds; free in release builds.
#[derive(Debug)]
struct Held;

impl Held {
    fn new() -> Held {
        #[cfg(debug_assertions)]
        HELD.with(|held| held.set(held.get() + 1));
        Held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        HELD.with(|held| held.set(held.get() - 1));
    }
}

/// [R23] Panics, in builds with debug assertions, if the current thread holds a lock: it is about to wait.
pub fn assert_no_lock_held() {
    #[cfg(debug_assertions)]
    HELD.with(|held| assert_eq!(held.get(), 0, "R23: a lock is held while waiting"));
}

/// A mutual-exclusion lock whose `lock` cannot fail.
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

/// Held while a `Mutex` is locked.
#[derive(Debug)]
pub struct MutexGuard<'a, T>(imp::MutexGuard<'a, T>, Held);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Mutex<T> {
    /// A new, unlocked lock.
    pub fn new(value: T) -> Mutex<T> {
        Mutex(imp::Mutex::new(value))
    }

    /// Locks; [R23] never held across a wait for a disk.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().expect("a panic ends the process, so no lock is ever poisoned");
        MutexGuard(guard, Held::new())
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
#[derive(Debug)]
pub struct RwLockReadGuard<'a, T>(imp::RwLockReadGuard<'a, T>, #[allow(dead_code)] Held);

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Held while an `RwLock` is written.
#[derive(Debug)]
pub struct RwLockWriteGuard<'a, T>(imp::RwLockWriteGuard<'a, T>, #[allow(dead_code)] Held);

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> RwLock<T> {
    /// A new, unlocked lock.
    pub fn new(value: T) -> RwLock<T> {
        RwLock(imp::RwLock::new(value))
    }

    /// Locks for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let guard = self.0.read().expect("a panic ends the process, so no lock is ever poisoned");
        RwLockReadGuard(guard, Held::new())
    }

    /// Locks for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let guard = self.0.write().expect("a panic ends the process, so no lock is ever poisoned");
        RwLockWriteGuard(guard, Held::new())
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
        let MutexGuard(guard, held) = guard;
        let guard = self.0.wait(guard);
        MutexGuard(guard.expect("a panic ends the process, so no lock is ever poisoned"), held)
    }

    /// Parks until notified or `timeout` has passed.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: std::time::Duration,
    ) -> MutexGuard<'a, T> {
        let MutexGuard(guard, held) = guard;
        let result = self.0.wait_timeout(guard, timeout);
        let (guard, _) = result.expect("a panic ends the process, so no lock is ever poisoned");
        MutexGuard(guard, held)
    }
}
