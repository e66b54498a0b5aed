//! The outputs of a story.
use super::weather::{PAST, Weather, log_uniform, usize_between};
use crate::bench::synthetic::Random;

/// Channels of a flood.
const FLOODED: u64 = 1_000;
/// The part of it that is played in as small a part of the space: see [`super::weather::Market`].
pub(super) const PART: u64 = 20;
/// HTLCs of each.
const FLOOD_HTLCS: u64 = 30;

/// Why an output is there, and who else can take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// An HTLC that the peer offered, on its commitment: ours by the preimage until its expiry.
    Success,
    /// One that we offered: ours from its expiry, and to be claimed before it is due upstream.
    Timeout,
    /// The cheater's balance: ours until its delay is over.
    PenaltyBalance,
    /// An HTLC of a revoked commitment: the cheater may take it to its second stage.
    PenaltyHtlc,
    /// Ours alone.
    Sweep,
}

impl Role {
    pub(super) const fn is_penalty(self) -> bool {
        matches!(self, Self::PenaltyBalance | Self::PenaltyHtlc)
    }

    /// Length of the script, and of what goes into the witness besides script and signature.
    pub(super) const fn script(self) -> usize {
        match self {
            Self::Success => 136,
            Self::Timeout | Self::PenaltyHtlc => 142,
            Self::PenaltyBalance | Self::Sweep => 78,
        }
    }

    /// Weight of the input with its witness (BOLT 3, Appendix A: script, signature, unlock).
    pub(super) const fn input_weight(self) -> u64 {
        let unlock = match self {
            Self::Success => 33,
            Self::Timeout | Self::Sweep => 1,
            Self::PenaltyBalance => 2,
            Self::PenaltyHtlc => 34,
        };
        let script = self.script() as u64;
        41 * 4 + 1 + 73 + unlock + 1 + script
    }
}

/// An output to claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) channel: u32,
    pub(super) role: Role,
    /// In satoshis.
    pub(super) value: u64,
    /// Height of the tip from which on a spend may be in the next block.
    pub(super) open: usize,
    /// Height of the last block that may hold the spend.
    pub(super) deadline: Option<usize>,
    /// What a timeout's spend needs.
    pub(super) lock_time: u32,
    /// How often an attacker can push our spend out of the mempool.
    pub(super) cycles: u32,
    /// Absolute fee of a conflicting spend that is there first.
    pub(super) pin: Option<u64>,
}

/// The outputs of a story.
pub(super) struct Load {
    pub(super) outputs: Vec<Output>,
    pub(super) end: usize,
}

impl Load {
    pub(super) fn of(weather: Weather, seed: u64) -> Self {
        let mut random = Random::new("load", seed);
        let mut load = Self { outputs: Vec::new(), end: PAST + weather.length() - 1 };
        let flooded = match weather {
            Weather::Flood => FLOODED / PART,
            Weather::WholeFlood => FLOODED,
            _ => 0,
        };
        for channel in 0..flooded {
            load.flooded(channel as u32, &mut random);
        }
        if flooded > 0 {
            return load;
        }
        for channel in 0..random.between(2, 5) as u32 {
            match random.between(0, 2) {
                0 => load.revoked(channel, &mut random),
                _ => load.remote(channel, &mut random),
            }
        }
        load.attack(weather, &mut random);
        load
    }

    fn push(&mut self, channel: u32, role: Role, value: u64, open: usize, left: Option<usize>) {
        let lock_time = if role == Role::Timeout { open as u32 } else { 0 };
        let deadline = left.map(|left| open + left);
        let (cycles, pin) = (0, None);
        let output = Output { channel, role, value, open, deadline, lock_time, cycles, pin };
        self.outputs.push(output);
    }

    /// The peer's commitment with HTLCs in both directions, and what was ours of another channel.
    fn remote(&mut self, channel: u32, random: &mut Random) {
        let closed = PAST + usize_between(random, 0, 30);
        let mut expiry = closed + usize_between(random, 20, 140);
        for _ in 0..random.between(1, 8) {
            if random.between(0, 1) == 0 {
                expiry = closed + usize_between(random, 20, 140);
            }
            let value = log_uniform(random, 30_000.0, 3_000_000.0) as u64;
            if random.between(0, 1) == 0 {
                self.push(channel, Role::Success, value, closed, Some(expiry - closed));
            } else {
                let upstream = usize_between(random, 24, 80);
                self.push(channel, Role::Timeout, value, expiry, Some(upstream));
            }
        }
        let balance = log_uniform(random, 50_000.0, 5_000_000.0) as u64;
        self.push(channel, Role::Sweep, balance, closed + usize_between(random, 1, 144), None);
    }

    fn revoked(&mut self, channel: u32, random: &mut Random) {
        let closed = PAST + usize_between(random, 0, 30);
        let delay = usize_between(random, 72, 144);
        let balance = log_uniform(random, 200_000.0, 5_000_000.0) as u64;
        self.push(channel, Role::PenaltyBalance, balance, closed, Some(delay));
        for _ in 0..random.between(0, 6) {
            let value = log_uniform(random, 30_000.0, 2_000_000.0) as u64;
            self.push(channel, Role::PenaltyHtlc, value, closed, Some(delay));
        }
    }

    /// Everything expires within a few blocks, and is lost a few blocks later.
    fn flooded(&mut self, channel: u32, random: &mut Random) {
        for _ in 0..FLOOD_HTLCS {
            let expiry = PAST + 10 + usize_between(random, 0, 5);
            let value = log_uniform(random, 50_000.0, 1_000_000.0) as u64;
            self.push(channel, Role::Timeout, value, expiry, Some(34));
        }
    }

    /// Attackers are peers: they can do it to HTLC outputs of theirs only.
    fn attack(&mut self, weather: Weather, random: &mut Random) {
        let htlc = |output: &&mut Output| {
            matches!(output.role, Role::Success | Role::Timeout | Role::PenaltyHtlc)
        };
        for output in self.outputs.iter_mut().filter(htlc) {
            match weather {
                Weather::Cycling => output.cycles = random.between(10, 120) as u32,
                Weather::Pinning if random.between(0, 1) == 0 => {
                    // At 1 sat/vB, up to the largest transaction that is relayed.
                    let pin = log_uniform(random, 1_000.0, 100_000.0) as u64;
                    output.pin = Some(pin.min(output.value / 2));
                }
                _ => {}
            }
        }
    }
}
