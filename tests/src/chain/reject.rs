//! What the mempool answers: acceptance, or a refusal in Bitcoin Core's words.

use bitcoin::{Amount, BlockHash, Txid, Wtxid};
use thiserror::Error;

use super::script_error::ScriptError;

/// A transaction that is in the mempool now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub txid: Txid,
    /// Virtual size, adjusted by signature operations as Core does.
    pub vsize: u64,
    pub fee: Amount,
    /// What left the mempool for it: direct conflicts and their descendants, in txid order.
    pub replaced: Vec<Txid>,
}

/// What a replacement was measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displaces {
    /// Transactions that spend the same outputs.
    Conflicts,
    /// The other child of a TRUC parent.
    Sibling,
}

impl Displaces {
    fn suffix(self) -> &'static str {
        match self {
            Self::Conflicts => "",
            Self::Sibling => " (including sibling eviction)",
        }
    }
}

/// Why a transaction is refused; `to_string` gives Core's reject reason exactly.
///
/// `sendrawtransaction` may add details after a comma, and `testmempoolaccept` shortens
/// `bad-txns-inputs-missingorspent` to `missing-inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Reject {
    #[error("bad-txns-vin-empty")]
    VinEmpty,
    #[error("bad-txns-vout-empty")]
    VoutEmpty,
    #[error("bad-txns-oversize")]
    Oversize,
    #[error("bad-txns-vout-toolarge")]
    OutputTooLarge,
    #[error("bad-txns-txouttotal-toolarge")]
    OutputTotalTooLarge,
    #[error("bad-txns-inputs-duplicate")]
    InputsDuplicate,
    #[error("bad-txns-prevout-null")]
    PrevoutNull,
    #[error("bad-cb-length")]
    CoinbaseLength,
    #[error("coinbase")]
    Coinbase,
    #[error("version")]
    Version,
    #[error("tx-size")]
    TxSize,
    #[error("tx-size-small")]
    TxSizeSmall,
    #[error("scriptsig-size")]
    ScriptSigSize,
    #[error("scriptsig-not-pushonly")]
    ScriptSigNotPushOnly,
    #[error("scriptpubkey")]
    ScriptPubkey,
    #[error("datacarrier")]
    DataCarrier,
    #[error("dust")]
    Dust,
    #[error("missing-ephemeral-spends")]
    MissingEphemeralSpends,
    #[error("non-final")]
    NonFinal,
    #[error("non-BIP68-final")]
    NonBip68Final,
    #[error("txn-already-in-mempool")]
    AlreadyInMempool,
    #[error("txn-same-nonwitness-data-in-mempool")]
    SameNonWitnessData,
    #[error("txn-already-known")]
    AlreadyKnown,
    #[error("bad-txns-inputs-missingorspent")]
    MissingOrSpent,
    #[error("bad-txns-premature-spend-of-coinbase")]
    PrematureSpendOfCoinbase,
    #[error("bad-txns-inputvalues-outofrange")]
    InputValuesOutOfRange,
    #[error("bad-txns-in-belowout")]
    InBelowOut { inputs: Amount, outputs: Amount },
    #[error("bad-txns-nonstandard-inputs")]
    NonStandardInputs,
    #[error("bad-witness-nonstandard")]
    WitnessNonStandard,
    #[error("bad-txns-too-many-sigops")]
    TooManySigops,
    #[error("min relay fee not met")]
    MinRelayFeeNotMet { fee: Amount, needed: Amount },
    #[error("TRUC-violation")]
    Truc(TrucViolation),
    #[error("too many potential replacements{}", .0.suffix())]
    TooManyReplacements(Displaces),
    #[error("insufficient fee{}", .displaces.suffix())]
    InsufficientFee { displaces: Displaces, fee: Amount, needed: Amount },
    /// The replacement does not improve the feerate diagram.
    #[error("replacement-failed")]
    ReplacementFailed,
    #[error("too-large-cluster")]
    TooLargeCluster,
    #[error("bad-txns-spends-conflicting-tx")]
    SpendsConflicting,
    /// Of a package's transaction that another one of the package has replaced.
    #[error("mempool full")]
    MempoolFull,
    #[error("mempool-script-verify-flag-failed ({error})")]
    Script { input: usize, error: ScriptError },
    /// Only for blocks given transaction by transaction.
    #[error("block-script-verify-flag-failed ({error})")]
    BlockScript { input: usize, error: ScriptError },
    /// Only for blocks given transaction by transaction: locktime or relative lock.
    #[error("bad-txns-nonfinal")]
    BlockNonFinal,
    #[error("bad-blk-weight")]
    BlockWeight,
}

impl Reject {
    /// True if the same transaction may pass with a child that pays for it.
    pub fn may_pass_in_package(&self) -> bool {
        matches!(
            self,
            Self::MinRelayFeeNotMet { .. }
                | Self::InsufficientFee { .. }
                | Self::ReplacementFailed
                | Self::MissingOrSpent
        )
    }
}

/// How a transaction breaks BIP431's topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrucViolation {
    #[error("non-version=3 tx cannot spend from version=3 tx")]
    NonTrucSpendsTruc,
    #[error("version=3 tx cannot spend from non-version=3 tx")]
    TrucSpendsNonTruc,
    #[error("version=3 tx is too big")]
    TooBig,
    #[error("version=3 child tx is too big")]
    ChildTooBig,
    #[error("tx would have too many ancestors")]
    TooManyAncestors,
    #[error("tx would exceed descendant count limit")]
    TooManyDescendants,
}

/// What `submitpackage` says of the package as a whole: `package_msg`, without details.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PackageReject {
    #[error("Array must contain between 1 and 25 transactions.")]
    Count,
    #[error("package topology disallowed. not child-with-parents or parents depend on each other.")]
    Topology,
    #[error("package-too-large")]
    TooLarge,
    #[error("package-contains-duplicates")]
    Duplicates,
    #[error("conflict-in-package")]
    ConflictInPackage,
    /// The verdicts of the single transactions say more.
    #[error("transaction failed")]
    TransactionFailed,
    #[error("unspent-dust")]
    UnspentDust,
    #[error("TRUC-violation")]
    Truc(TrucViolation),
    #[error("too-large-cluster")]
    TooLargeCluster,
    #[error("package RBF failed: package must be 1-parent-1-child")]
    RbfTopology,
    #[error("package RBF failed: new transaction cannot have mempool ancestors")]
    RbfMempoolAncestors,
    #[error("package RBF failed: too many potential replacements")]
    RbfTooManyReplacements,
    #[error("package RBF failed: insufficient anti-DoS fees")]
    RbfInsufficientFees { fee: Amount, needed: Amount },
    #[error("package RBF failed: package feerate is less than or equal to parent feerate")]
    RbfParentPays,
    #[error("package RBF failed: insufficient feerate: does not improve feerate diagram")]
    RbfDiagram,
}

/// The verdict on one transaction of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackageVerdict {
    Accepted(Accepted),
    AlreadyInMempool,
    /// The mempool has it with another witness, and keeps that.
    DifferentWitness(Wtxid),
    Rejected(Reject),
    /// The package was refused as a whole before this transaction had a verdict.
    NotEvaluated,
}

impl PackageVerdict {
    /// True if the transaction (by its txid) is in the mempool.
    pub fn is_in_mempool(&self) -> bool {
        matches!(self, Self::Accepted(_) | Self::AlreadyInMempool | Self::DifferentWitness(_))
    }
}

/// What became of a package: some transactions may be in although the package failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageReport {
    pub outcome: Result<(), PackageReject>,
    /// One verdict a transaction, in the order given.
    pub verdicts: Vec<(Txid, PackageVerdict)>,
}

impl PackageReport {
    /// The verdict on one transaction.
    pub fn verdict(&self, txid: &Txid) -> Option<&PackageVerdict> {
        self.verdicts.iter().find(|(id, _)| id == txid).map(|(_, verdict)| verdict)
    }
}

/// Misuse of the chain by its driver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChainError {
    #[error("cannot disconnect {blocks} blocks at height {height}")]
    DisconnectPastGenesis { blocks: u32, height: u32 },
    #[error("the faucet cannot pay {0}")]
    FaucetDry(Amount),
    #[error("block on {parent} refused: {reject}")]
    Block { parent: BlockHash, reject: Reject },
}
