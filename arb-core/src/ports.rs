//! Ports: what the arbiter needs from outside, as small async traits. A verdict is a value;
//! `Err` means "not now, try again".
use crate::claim::SigningKey;
use crate::claim::trough::{PastBlock, Troughs};
use crate::ids::ChannelId;
use crate::log::Home;
use crate::units::{BlockHeight, BlockRef, CommitmentNumber};
use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{
    Amount, Block, BlockHash, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid, Weight,
};
use core::error::Error;
use core::future::Future;

/// Blocks and mempool of a full node.
pub trait BlockSource: Send + Sync + 'static {
    /// Why a call failed; it is repeated later.
    type Error: Error + Send + Sync + 'static;

    /// The tip of the most-work chain.
    fn tip(&self) -> impl Future<Output = Result<BlockRef, Self::Error>> + Send;

    /// Hash of the block at `height` in the most-work chain; `None` above the tip.
    fn hash_at(
        &self,
        height: BlockHeight,
    ) -> impl Future<Output = Result<Option<BlockHash>, Self::Error>> + Send;

    /// The block with this hash, stale blocks included; `None` if the source does not have it.
    fn block(
        &self,
        hash: BlockHash,
    ) -> impl Future<Output = Result<Option<Block>, Self::Error>> + Send;

    /// Mempool transactions that spend any of these outputs.
    fn mempool_spenders(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> impl Future<Output = Result<Vec<Transaction>, Self::Error>> + Send;

    /// Resolves when the tip or the mempool may have changed since the last call.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// A block at or below `tip`, in its chain, with transactions alone that the source heard of when it may have
    /// served the block without them: one that sees what spends registered outputs is told of some late. It is given
    /// again until [`had`](Self::had) it. A source of whole blocks knows of none; one around another passes both calls on.
    fn late(&self, _tip: BlockRef) -> Option<(BlockRef, Block)> {
        None
    }

    /// What [`late`](Self::late) gave is durable.
    fn had(&self, _at: BlockRef, _block: &Block) {}
}

/// A source whose [`mempool_spenders`](BlockSource::mempool_spenders) are those of a mempool. One that sees blocks alone
/// is none, though it may say that there are no spenders.
pub trait SeesMempool: BlockSource {}

/// Says what past blocks took, so that a claim that can wait knows what to wait for
/// ([`FeeEstimates::troughs`]).
pub trait BlockFees: BlockSource {
    /// What the block with this hash took, and when; `None` if the block does not tell (it is empty), or is
    /// not there (any more).
    fn past_block(
        &self,
        hash: BlockHash,
    ) -> impl Future<Output = Result<Option<PastBlock>, Self::Error>> + Send;
}

/// Transactions that go out together, parents first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The transactions.
    pub transactions: Vec<Transaction>,
    /// What they are to claim. Empty: whoever made the package does not say.
    pub stakes: Vec<Stake>,
}

/// An output that a package claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stake {
    /// The channel whose output it is.
    pub channel: ChannelId,
    /// The output.
    pub outpoint: OutPoint,
    /// Height by which a spend must be confirmed, one that is past where every block counts; `None`: nobody else
    /// can take it, and nothing is lost by waiting.
    pub deadline: Option<BlockHeight>,
}

impl From<Vec<Transaction>> for Package {
    /// A package that does not say what it claims.
    fn from(transactions: Vec<Transaction>) -> Self {
        Self { transactions, stakes: Vec::new() }
    }
}

/// What the network says of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In the mempool now.
    Accepted,
    /// In the mempool or in a block already.
    Known,
    /// Handed over, and the network's answer is not heard. For the arbiter that is as good as accepted, for it hears
    /// of no refusal either; what goes by it should not.
    HandedOver,
    /// An input is spent by another transaction, in a block or without room for replacement, or
    /// does not exist (yet).
    Conflict(String),
    /// The fee is below the mempool's floor, or too low to replace.
    FeeTooLow(String),
    /// A lock time or relative lock is not over.
    NotFinal(String),
    /// Refused for another reason.
    Refused(String),
}

impl Verdict {
    /// Whether the transaction is where it should be.
    #[must_use]
    pub const fn is_in(&self) -> bool {
        matches!(self, Self::Accepted | Self::Known)
    }

    /// Whether it is, or may be: nothing else was heard.
    #[must_use]
    pub const fn is_handed_over(&self) -> bool {
        self.is_in() || matches!(self, Self::HandedOver)
    }
}

/// Hands transactions to the network.
pub trait Broadcast: Send + Sync + 'static {
    /// Why a call failed; it is repeated later.
    type Error: Error + Send + Sync + 'static;

    /// Hands a package over: one verdict a transaction, in order.
    fn broadcast(
        &self,
        package: Package,
    ) -> impl Future<Output = Result<Vec<(Txid, Verdict)>, Self::Error>> + Send;

    /// What the network would say of a transaction, which is not handed over; `None`: it cannot be
    /// asked. A transaction of several claims that is refused is then taken apart before anybody has
    /// seen it, otherwise by handing over its parts.
    fn test(
        &self,
        transaction: Transaction,
    ) -> impl Future<Output = Result<Option<Verdict>, Self::Error>> + Send {
        let _ = transaction;
        async { Ok(None) }
    }
}

/// Feerates as data, so that decisions can be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeeEstimates {
    /// Estimates: (target in blocks, feerate), ascending by target. Empty: nothing is known.
    pub targets: Vec<(u16, FeeRate)>,
    /// The mempool's floor: nothing below it is accepted.
    pub floor: FeeRate,
    /// What the next hours are likely to cost, made of past blocks. The default says nothing, and claims
    /// go by the targets.
    pub troughs: Troughs,
}

impl FeeEstimates {
    /// The estimate for confirmation within `blocks`: on a straight line between the targets
    /// around it; at the ends, that of the smallest or of the largest target. Never above the
    /// estimate of a shorter target (what is enough for fewer blocks is enough for more, and whoever
    /// hurries never pays less), and never below the floor.
    ///
    /// What cannot be is taken for an error of the source, and for the most that can: a claim far from its
    /// deadline would pay all that it brings. That is what no block has taken yet, and where past blocks are known,
    /// a large multiple of what the next one is expected to take.
    #[must_use]
    pub fn within(&self, blocks: u32) -> FeeRate {
        let reachable = self.targets.iter().rposition(|(target, _)| u32::from(*target) <= blocks);
        let at = reachable.unwrap_or(0);
        let cheapest = |until: usize| {
            let rates = self.targets.iter().take(until.saturating_add(1)).map(|(_, rate)| *rate);
            rates.min().unwrap_or(self.floor).max(self.floor).to_sat_per_kwu()
        };
        let (now, later) = (cheapest(at), cheapest(at.saturating_add(1)));
        let target = |at: usize| self.targets.get(at).map(|(target, _)| u64::from(*target));
        let rate = match (target(at), target(at.saturating_add(1))) {
            (Some(start), Some(end)) if end > start => {
                let passed = u64::from(blocks).saturating_sub(start);
                let fall = u128::from(now.saturating_sub(later))
                    .saturating_mul(u128::from(passed))
                    .checked_div(u128::from(end.saturating_sub(start)));
                now.saturating_sub(fall.and_then(|fall| u64::try_from(fall).ok()).unwrap_or(0))
            }
            _ => now,
        };
        FeeRate::from_sat_per_kwu(rate).min(self.most()).max(self.floor)
    }

    /// The most that is believed.
    fn most(&self) -> FeeRate {
        let expected = self.troughs.within(1).map(|next| next.max(self.floor));
        let leap = |next: FeeRate| next.checked_mul(Self::LEAP).unwrap_or(Self::HIGHEST);
        expected.map_or(Self::HIGHEST, leap).min(Self::HIGHEST)
    }

    /// No block has taken more on average, by far: 2,500 sat/vB.
    pub const HIGHEST: FeeRate = FeeRate::from_sat_per_kwu(625_000);
    /// Nor has the price of the next block been so many times what the blocks before it had led to expect.
    const LEAP: u64 = 30;
}

/// Estimates feerates.
pub trait FeeSource: Send + Sync + 'static {
    /// Why a call failed; the last estimates stay in use.
    type Error: Error + Send + Sync + 'static;

    /// Current estimates.
    fn estimates(&self) -> impl Future<Output = Result<FeeEstimates, Self::Error>> + Send;
}

/// One input to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignRequest {
    /// The channel whose key signs.
    pub channel: ChannelId,
    /// Which of its keys.
    pub key: SigningKey,
    /// The transaction, without witnesses of its own.
    pub transaction: Transaction,
    /// Input to sign.
    pub input: usize,
    /// Value and script of the output that each input spends, in input order.
    pub prevouts: Vec<TxOut>,
    /// Witness script; `None`: P2WPKH.
    pub script: Option<ScriptBuf>,
    /// Sighash type.
    pub sighash: EcdsaSighashType,
}

/// Asks for a per-commitment point of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointRequest {
    /// The channel.
    pub channel: ChannelId,
    /// Number of our commitment, counted up from 0.
    pub number: CommitmentNumber,
}

/// Signs with channel keys.
pub trait Signer: Send + Sync + 'static {
    /// Why a call failed; it is repeated later, and holds up this claim only.
    type Error: Error + Send + Sync + 'static;

    /// Signs one input. Low-S.
    fn sign(
        &self,
        request: SignRequest,
    ) -> impl Future<Output = Result<ecdsa::Signature, Self::Error>> + Send;

    /// The per-commitment point of a commitment of ours (BOLT 3 "Per-commitment Secret Requirements"), of any number.
    /// Asked for when one confirms that the facts do not hold: an outdated one, or one that is newer than what was
    /// left of them. Without it our balance there cannot be swept. `None`: the signer cannot say, and is asked again at
    /// the next block.
    fn point(
        &self,
        request: PointRequest,
    ) -> impl Future<Output = Result<Option<PublicKey>, Self::Error>> + Send;
}

/// A wallet coin that pays fees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// The coin.
    pub outpoint: OutPoint,
    /// Its value and script.
    pub output: TxOut,
    /// Weight of its witness and empty script signature when signed, an upper bound.
    pub satisfaction_weight: Weight,
}

/// Coins wanted for a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoinRequest {
    /// The claim: coins reserved for it before are offered again first.
    pub claim: OutPoint,
    /// Value that the coins must bring, beyond the fee of their own inputs.
    pub amount: Amount,
    /// Feerate at which their own inputs are paid.
    pub feerate: FeeRate,
    /// A coin whose input would cost all of it at this feerate is left for better times: as long as there is time, more than
    /// what is paid.
    pub worth: FeeRate,
    /// The channel of the claim.
    pub channel: ChannelId,
    /// The first deadline of what the coins help to claim, as in [`Stake::deadline`].
    pub deadline: Option<BlockHeight>,
    /// How many coins there is room for in the transaction. Reserving more than these is of no use to it, and keeps them
    /// from others.
    pub most: usize,
}

/// The wallet, as far as fees go. Confirmed coins only.
pub trait CoinSource: Send + Sync + 'static {
    /// Why a call failed; it is repeated later.
    type Error: Error + Send + Sync + 'static;

    /// Selects and reserves coins; fewer than asked for if the wallet has not enough, none if it
    /// has nothing that is worth its input.
    fn select(
        &self,
        request: CoinRequest,
    ) -> impl Future<Output = Result<Vec<Coin>, Self::Error>> + Send;

    /// Where change goes.
    fn change_script(&self) -> impl Future<Output = Result<ScriptBuf, Self::Error>> + Send;

    /// Adds the witnesses of the wallet's own inputs; leaves all others alone.
    fn sign(
        &self,
        transaction: Transaction,
        prevouts: Vec<TxOut>,
    ) -> impl Future<Output = Result<Transaction, Self::Error>> + Send;

    /// The claim needs its reserved coins no more. Where a block spends them this comes six blocks
    /// later, since a wallet may hear of a block after the arbiter did.
    fn release(&self, claim: OutPoint) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Coins in transactions of ours that were handed out, before a restart perhaps: they are reserved for `claim` from
    /// now on, and for no other any more. A coin belongs to the claim that it was reserved for last. Reservations are not to
    /// outlive the process: the arbiter states again which there are.
    fn reserve(
        &self,
        claim: OutPoint,
        coins: Vec<OutPoint>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Keeps bytes under names, for records that are not the arbiter's own: a name is unique within its
/// folder. Neither may contain a zero.
pub trait ByteStore: Send + Sync + 'static {
    /// Why a call failed; nothing was changed then.
    type Error: Error + Send + Sync + 'static;
    /// Resolves when a write is on stable storage.
    type Write: Future<Output = Result<(), Self::Error>> + Send + 'static;

    /// Where it keeps them: a change log with the same home writes a record of the node's own together with
    /// its own, as `put` would.
    fn home(&self) -> Option<Home> {
        None
    }

    /// The bytes under a name, as of the last write that has resolved, or a later one.
    ///
    /// # Errors
    /// The medium failed, or the bytes are damaged.
    fn get(&self, folder: &str, name: &str) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Writes bytes, in the order of the calls: the write is under way when this returns.
    fn put(&self, folder: &str, name: &str, bytes: Vec<u8>) -> Self::Write;

    /// The same, for a few bytes without which a claim cannot be published: where space is kept for when the medium is
    /// full, it may be used.
    fn put_reserved(&self, folder: &str, name: &str, bytes: Vec<u8>) -> Self::Write {
        self.put(folder, name, bytes)
    }

    /// Deletes what is under a name, in the order of the calls. That there is nothing is no error.
    fn delete(&self, folder: &str, name: &str) -> Self::Write;

    /// The names in a folder, in no order that means anything.
    ///
    /// # Errors
    /// The medium failed.
    fn names(&self, folder: &str) -> Result<Vec<String>, Self::Error>;
}

/// Whose a script is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScriptOwner {
    /// The node: what is paid to it is at home.
    Node,
    /// Somebody else, for all that the node knows.
    Other,
}

/// Says which scripts are the node's own, so that a mutual close is known by what it pays.
///
/// ```
/// use arb_core::ports::{OurScripts, ScriptOwner};
/// use bitcoin::ScriptBuf;
/// use std::collections::HashSet;
///
/// struct Wallet(HashSet<ScriptBuf>);
///
/// impl OurScripts for Wallet {
///     type Error = std::convert::Infallible;
///
///     async fn owners(&self, scripts: Vec<ScriptBuf>) -> Result<Vec<ScriptOwner>, Self::Error> {
///         let owner = |script| match self.0.contains(script) {
///             true => ScriptOwner::Node,
///             false => ScriptOwner::Other,
///         };
///         Ok(scripts.iter().map(owner).collect())
///     }
/// }
/// ```
pub trait OurScripts: Send + Sync + 'static {
    /// Why a call failed; it is repeated later.
    type Error: Error + Send + Sync + 'static;

    /// Whose each script is, in the same order.
    fn owners(
        &self,
        scripts: Vec<ScriptBuf>,
    ) -> impl Future<Output = Result<Vec<ScriptOwner>, Self::Error>> + Send;
}

/// Hands out the scripts that claims pay to, for channels whose facts name none.
///
/// ```
/// use arb_core::ids::ChannelId;
/// use arb_core::ports::Destinations;
/// use bitcoin::ScriptBuf;
///
/// struct Wallet;
///
/// impl Wallet {
///     /// Notes durably that the address is used, before it answers.
///     fn next_address(&self) -> Result<ScriptBuf, std::io::Error> {
///         Ok(ScriptBuf::new_p2wsh(&ScriptBuf::new().wscript_hash()))
///     }
/// }
///
/// impl Destinations for Wallet {
///     type Error = std::io::Error;
///
///     async fn fresh(&self, _: ChannelId) -> Result<ScriptBuf, Self::Error> {
///         self.next_address()
///     }
/// }
/// ```
pub trait Destinations: Send + Sync + 'static {
    /// Why a call failed; the channel is not watched then.
    type Error: Error + Send + Sync + 'static;

    /// A script of the node's that no call has had before, in this run or in an earlier one. It
    /// may never be used: the caller may end before the channel is durable.
    fn fresh(
        &self,
        channel: ChannelId,
    ) -> impl Future<Output = Result<ScriptBuf, Self::Error>> + Send;
}
