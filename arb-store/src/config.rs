//! Settings of a store.

/// Settings of a store. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Size of the memory map of a new store. It doubles when it is full.
    pub initial_map: u64,
    /// Size beyond which the map does not grow: the disk counts as full.
    pub max_map: u64,
    /// Emergency space: real bytes, given up when the disk is full, so that batches other than
    /// facts still go through.
    pub reserve: u64,
    /// With less free space than this the store reports [`crate::Health::Low`].
    pub low: u64,
    /// With less free space than this the disk counts as full.
    pub critical: u64,
    /// What the store may occupy, emergency space included; `None`: what the disk has. See
    /// [`crate::StoreControl::set_quota`].
    pub quota: Option<u64>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            initial_map: 16 << 20,
            max_map: 64 << 30,
            reserve: 8 << 20,
            low: 256 << 20,
            critical: 1 << 20,
            quota: None,
        }
    }
}
