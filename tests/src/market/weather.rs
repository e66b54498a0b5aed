//! What block space costs, block by block.
use super::load::PART;
use crate::bench::synthetic::Random;
use std::ops::Range;

/// Blocks before the story: what estimates are made of.
pub(super) const PAST: usize = 432;
/// The mempool's floor, and the least that a block costs: 1 sat/vB, in satoshis per 1000 weight
/// units.
pub(super) const FLOOR: f64 = 250.0;
/// Weight of a block.
const BLOCK: f64 = 4_000_000.0;
/// Seconds between two blocks on average, and of a day.
const BLOCK_SECONDS: f64 = 600.0;
const DAY_SECONDS: f64 = 86_400.0;
/// How fast the demand of others falls with the price: of a whole block at the clearing price, an
/// eighth is left at twice the price.
pub(super) const ELASTICITY: f64 = 3.0;

/// A kind of story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// A steady price.
    Calm,
    /// Days are twice as dear as nights.
    Wave,
    /// Twenty times the price within ten blocks.
    Spike,
    /// Ten times the price for a week.
    High,
    /// Flood and loot: more channels close than fit. A twentieth of it, in a twentieth of the space.
    Flood,
    /// All of it: a thousand channels.
    WholeFlood,
    /// Miners who leave our transactions out for 12 blocks.
    Censorship,
    /// Replacement cycling.
    Cycling,
    /// Conflicting spends that are dear to replace and are never mined.
    Pinning,
}

impl Weather {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Calm,
        Self::Wave,
        Self::Spike,
        Self::High,
        Self::Flood,
        Self::WholeFlood,
        Self::Censorship,
        Self::Cycling,
        Self::Pinning,
    ];

    /// As the table calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Wave => "daily wave",
            Self::Spike => "spike",
            Self::High => "week-long high",
            Self::Flood => "flood and loot",
            Self::WholeFlood => "flood, 1,000 channels",
            Self::Censorship => "censorship",
            Self::Cycling => "replacement cycling",
            Self::Pinning => "pinning",
        }
    }

    /// Blocks that the story lasts.
    pub(super) const fn length(self) -> usize {
        match self {
            Self::High => 1_400,
            _ => 720,
        }
    }

    /// The market of one story.
    pub(super) fn market(self, seed: u64) -> Market {
        let mut random = Random::new(self.name(), seed);
        let base = FLOOR * log_uniform(&mut random, 2.0, 30.0);
        let start = PAST + usize_between(&mut random, 2, 60);
        let phase = unit(&mut random);
        let (mut drift, mut clock) = (0.0_f64, 0.0_f64);
        let mut times = Vec::new();
        let clears = (0..PAST + self.length()).map(|height| {
            drift = 0.97 * drift + 0.03 * normal(&mut random);
            // Blocks come when they come: a long gap makes the next one dear, a short one cheap.
            let gap = -(1.0 - unit(&mut random)).ln();
            let noise = drift + 0.08 * (gap - 1.0);
            clock += gap * BLOCK_SECONDS;
            times.push(clock as u32);
            let since = height.checked_sub(start).map(|since| since as f64);
            let level = match self {
                Self::Wave => {
                    let turn = (clock / DAY_SECONDS + phase) * std::f64::consts::TAU;
                    0.35 * turn.sin()
                }
                Self::Spike => since.map_or(0.0, |since| {
                    let up = 20.0_f64.ln() * (since / 10.0).min(1.0);
                    let down = ((since - 10.0).max(0.0) / 40.0).min(1.0) * 20.0_f64.ln();
                    up - down
                }),
                Self::High => since.map_or(0.0, |since| {
                    let up = (since / 20.0).min(1.0);
                    let down = ((since - 1_008.0).max(0.0) / 72.0).min(1.0);
                    10.0_f64.ln() * (up - down)
                }),
                Self::Calm
                | Self::Flood
                | Self::WholeFlood
                | Self::Censorship
                | Self::Cycling
                | Self::Pinning => 0.0,
            };
            (base * (level + noise).exp()).max(FLOOR)
        });
        let clears: Vec<f64> = clears.collect();
        let censored = match self {
            Self::Censorship => {
                let from = PAST + usize_between(&mut random, 0, 40);
                from..from + 12
            }
            _ => 0..0,
        };
        // A flood of a thousand channels fills whole blocks. A twentieth of it in a twentieth of
        // the space is the same market.
        let room = if self == Self::Flood { BLOCK / PART as f64 } else { BLOCK };
        Market { times, clears, censored, room }
    }
}

/// The market of one story. Heights count from the first block of the past.
pub(super) struct Market {
    /// When each block came, in seconds. A day is a day, however many blocks it has.
    pub(super) times: Vec<u32>,
    /// The feerate from which a block has room, in satoshis per 1000 weight units.
    pub(super) clears: Vec<f64>,
    /// Blocks without ours.
    pub(super) censored: Range<usize>,
    /// Weight of a block.
    pub(super) room: f64,
}

impl Market {
    /// Weight that the block at `height` leaves to whoever pays `feerate`.
    pub(super) fn room_at(&self, height: usize, feerate: f64) -> f64 {
        let Some(clears) = self.clears.get(height).filter(|_| !self.censored.contains(&height))
        else {
            return 0.0;
        };
        if feerate < *clears { 0.0 } else { self.slack(feerate / clears) }
    }

    /// There is always a little room at the clearing price.
    fn slack(&self, ratio: f64) -> f64 {
        self.room * (1.0 - ratio.powf(-ELASTICITY)) + self.room / 40.0
    }
}

/// A number below one.
pub(super) fn unit(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

pub(super) fn usize_between(random: &mut Random, low: u64, high: u64) -> usize {
    usize::try_from(random.between(low, high)).unwrap_or(usize::MAX)
}

/// Between the two, each order of magnitude as likely as the next.
pub(super) fn log_uniform(random: &mut Random, low: f64, high: f64) -> f64 {
    low * (high / low).powf(unit(random))
}

/// Of the standard normal distribution, near enough: twelve throws.
fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| unit(random)).sum::<f64>() - 6.0
}
