//! Files of a core's shards.

/// Files.
#[derive(Default)]
pub struct Storage {}

impl Storage {
    /// Count.
    pub fn background_count(&self) -> usize {
        0
    }
    /// Idle.
    pub fn is_idle(&self) -> bool {
        true
    }
}
