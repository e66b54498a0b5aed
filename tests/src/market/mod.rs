//! A market for block space, played through block by block: the same outputs are claimed by our
//! scheduler, by the fee policies of other implementations, and by somebody who knows the future.
//!
//! What is modelled: a price of block space that nobody controls ([`weather`]), estimates that know
//! the past only ([`estimate`]), outputs with values, weights and deadlines ([`load`]), a mempool
//! with the rules of replacement, miners that take the best feerates, and attackers ([`world`]).
//! Foresight is held to the same rules as everybody: it pays what its blocks cost when all that it puts there is in them, replaces what is in its way,
//! joins no channels, nor what is pinned with what is not, and leaves what costs more than it brings, the transaction included ([`foresight`]).
//! What is not: propagation, other people's mempools, the price of a wallet's coins.
mod estimate;
mod foresight;
mod load;
mod others;
mod ours;
#[cfg(test)]
mod tests;
mod weather;
mod world;

pub use weather::Weather;

use foresight::Foresight;
use load::Load;
use world::{Policy, World};

/// What came of one story under one policy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Outputs.
    pub(crate) outputs: u64,
    /// Outputs with a deadline that were not claimed by it.
    pub(crate) missed: u64,
    /// Of those, the ones that somebody who knows the future claims within their value.
    pub(crate) avoidable: u64,
    /// Value of all that was not claimed, in satoshis.
    pub(crate) lost: u64,
    /// Fees of confirmed transactions, in satoshis.
    pub(crate) fees: u64,
    /// Weight of confirmed transactions.
    pub(crate) weight: u64,
}

impl Outcome {
    /// What the story cost, in satoshis.
    pub(crate) const fn cost(&self) -> u64 {
        self.lost.saturating_add(self.fees)
    }

    /// The sum of two.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            outputs: self.outputs + other.outputs,
            missed: self.missed + other.missed,
            avoidable: self.avoidable + other.avoidable,
            lost: self.lost + other.lost,
            fees: self.fees + other.fees,
            weight: self.weight + other.weight,
        }
    }
}

/// Who claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Player {
    Ours,
    Ldk,
    Lnd,
    CoreLightning,
    Eclair,
}

impl Player {
    pub(crate) const ALL: [Self; 5] =
        [Self::Ours, Self::Ldk, Self::Lnd, Self::CoreLightning, Self::Eclair];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Ldk => "LDK",
            Self::Lnd => "lnd",
            Self::CoreLightning => "Core Lightning",
            Self::Eclair => "eclair",
        }
    }
}

/// One story, told for everybody; or several, added up.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told {
    /// In the order of [`Player::ALL`].
    pub(crate) players: [Outcome; 5],
    /// With the future known.
    pub(crate) optimum: Outcome,
}

impl Told {
    /// The sum of two.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.optimum = self.optimum.and(other.optimum);
        for (sum, one) in self.players.iter_mut().zip(other.players) {
            *sum = sum.and(one);
        }
        self
    }
}

/// Plays one story.
pub(crate) fn play(weather: Weather, seed: u64) -> Told {
    let market = weather.market(seed);
    let load = Load::of(weather, seed);
    let foresight = Foresight::of(&market, &load);
    let outcome = |player: Player| {
        let mut policy: Box<dyn Policy> = match player {
            Player::Ours => Box::new(ours::Scheduler::new(&load)),
            Player::Ldk => Box::new(others::Ldk::default()),
            Player::Lnd => Box::new(others::Lnd::default()),
            Player::CoreLightning => Box::new(others::CoreLightning),
            Player::Eclair => Box::new(others::Eclair::default()),
        };
        World::new(&market, &load).play(policy.as_mut(), &foresight)
    };
    Told { players: Player::ALL.map(outcome), optimum: foresight.outcome(&load) }
}
