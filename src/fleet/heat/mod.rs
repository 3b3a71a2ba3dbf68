//! How hot each disk is now: the expected wait of one more request (design 5). Disks fill their
//! meters, this reads them; it holds no lock and waits for nothing.

mod estimate;

pub use estimate::Heat;
