//! Deadlines beside LDK's.
use arb_core::policy::Policy;
use arb_core::units::BlockDelta;

/// Blocks after an offered HTLC expires at which LDK closes the channel (its `LATENCY_GRACE_PERIOD_BLOCKS`).
const LDK_GRACE: u32 = 3;

/// The arbiter's settings where LDK is the first to close a channel whose HTLC is not resolved off chain: three blocks
/// after an offered one expires, and 36 before a received one does whose preimage is known. The arbiter's own
/// deadlines come after these, a block and 18 blocks later: it then closes what LDK has not.
///
/// A deadline of its own that came first would fail a channel that LDK has no quarrel with.
#[must_use]
pub fn beside_ldk() -> Policy {
    let offered_grace = BlockDelta(LDK_GRACE.saturating_add(1));
    Policy { offered_grace, ..Policy::default() }
}
