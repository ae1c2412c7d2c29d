//! How a board is while it runs.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// What changes of a board's hardware. Written by its agent, kept by the manager as long as the session. `None`: the
/// board cannot tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoardHealth {
    /// The processor's temperature, degrees Celsius.
    pub temperature: Option<i16>,
    /// Raspberry Pi's bits: [`UNDERVOLTAGE`](Self::UNDERVOLTAGE), [`CAPPED`](Self::CAPPED),
    /// [`THROTTLED`](Self::THROTTLED) and [`SOFT_LIMIT`](Self::SOFT_LIMIT) as they are now, and 16 bits above each
    /// whether it was so since the board started, as far as anybody saw.
    pub throttled: Option<u32>,
    /// Percent of the last minute in which some process waited for a CPU.
    pub pressure_cpu: Option<u8>,
    /// The same for memory.
    pub pressure_memory: Option<u8>,
    /// The same for disks.
    pub pressure_io: Option<u8>,
    /// Memory that programs can still get.
    pub memory_available: Option<Bytes>,
    /// Wi-Fi signal, dBm.
    pub wifi_signal: Option<i16>,
    /// Room left on the file system of the agent's data.
    pub disk_free: Option<Bytes>,
    /// Size of that file system.
    pub disk_size: Option<Bytes>,
    /// How much of the built-in storage's life is used, percent at most; over 100: more than its maker promises.
    pub storage_worn: Option<u8>,
    /// What the built-in storage says of its spare blocks: 1 normal, 2 most are used, 3 urgent.
    pub storage_spare: Option<u8>,
}

impl BoardHealth {
    /// Too little voltage at the board's supply.
    pub const UNDERVOLTAGE: u32 = 1;
    /// The processor's frequency is held down.
    pub const CAPPED: u32 = 1 << 1;
    /// The processor is slowed down.
    pub const THROTTLED: u32 = 1 << 2;
    /// The temperature is above the limit from which the processor is slowed down a little.
    pub const SOFT_LIMIT: u32 = 1 << 3;
    /// From a bit that is now to the one that says that it was.
    pub const SINCE: u32 = 16;
}
