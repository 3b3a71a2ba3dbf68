//! The expected wait of one more request on a disk: `W_d(x) = r_d + s_d * (Q_d + S(x))`.

use std::time::Duration;

use crate::base::sync::Arc;
use crate::base::{Clock, DiskIndex};
use crate::fleet::members::Members;

/// Expected waits of all members.
pub struct Heat {
    clock: Arc<dyn Clock>,
    members: Arc<Members>,
}

impl Heat {
    /// Reads the meters of `members` on `clock`.
    pub fn new(clock: Arc<dyn Clock>, members: Arc<Members>) -> Heat {
        Heat { clock, members }
    }

    /// Expected time until one more request of `bytes` would be answered by `disk`; `Duration::MAX`
    /// if it takes none.
    pub fn wait(&self, disk: DiskIndex, bytes: u64) -> Duration {
        let Some(handle) = self.members.handle(disk) else { return Duration::MAX };
        let load = handle.load();
        let _ = self.clock.now();
        load.outstanding + handle.predict(bytes)
    }
}
