//! Why a script fails, in the words of Bitcoin Core's `script_error.cpp`.

use thiserror::Error;

/// The reason in the brackets of `mempool-script-verify-flag-failed (...)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScriptError {
    #[error("Script evaluated without error but finished with a false/empty top stack element")]
    EvalFalse,
    #[error("Script failed an OP_VERIFY operation")]
    Verify,
    #[error("Script failed an OP_EQUALVERIFY operation")]
    EqualVerify,
    #[error("Script failed an OP_CHECKMULTISIGVERIFY operation")]
    CheckMultisigVerify,
    #[error("Script failed an OP_CHECKSIGVERIFY operation")]
    CheckSigVerify,
    #[error("Script failed an OP_NUMEQUALVERIFY operation")]
    NumEqualVerify,
    #[error("Push value size limit exceeded")]
    PushSize,
    #[error("Signature count negative or greater than pubkey count")]
    SigCount,
    #[error("Pubkey count negative or limit exceeded")]
    PubkeyCount,
    #[error("Opcode missing or not understood")]
    BadOpcode,
    #[error("Attempted to use a disabled opcode")]
    DisabledOpcode,
    #[error("Operation not valid with the current stack size")]
    InvalidStackOperation,
    #[error("Operation not valid with the current altstack size")]
    InvalidAltstackOperation,
    #[error("OP_RETURN was encountered")]
    OpReturn,
    #[error("Invalid OP_IF construction")]
    UnbalancedConditional,
    #[error("Negative locktime")]
    NegativeLocktime,
    #[error("Locktime requirement not satisfied")]
    UnsatisfiedLocktime,
    #[error("Signature hash type missing or not understood")]
    SigHashtype,
    #[error("Non-canonical DER signature")]
    SigDer,
    #[error("Data push larger than necessary")]
    MinimalData,
    #[error("Only push operators allowed in signatures")]
    SigPushOnly,
    #[error("Non-canonical signature: S value is unnecessarily high")]
    SigHighS,
    #[error("Dummy CHECKMULTISIG argument must be zero")]
    SigNullDummy,
    #[error("OP_IF/NOTIF argument must be minimal")]
    MinimalIf,
    #[error("Signature must be zero for failed CHECK(MULTI)SIG operation")]
    SigNullFail,
    #[error("NOPx reserved for soft-fork upgrades")]
    DiscourageUpgradableNops,
    #[error("Witness version reserved for soft-fork upgrades")]
    DiscourageUpgradableWitnessProgram,
    #[error("Public key is neither compressed or uncompressed")]
    PubkeyType,
    #[error("Stack size must be exactly one after execution")]
    CleanStack,
    #[error("Witness program hash mismatch")]
    WitnessProgramMismatch,
    #[error("Witness program was passed an empty witness")]
    WitnessProgramWitnessEmpty,
    #[error("Witness requires empty scriptSig")]
    WitnessMalleated,
    #[error("Witness requires only-redeemscript scriptSig")]
    WitnessMalleatedP2sh,
    #[error("Witness provided for non-witness script")]
    WitnessUnexpected,
    #[error("Using non-compressed keys in segwit")]
    WitnessPubkeyType,
    #[error("Invalid Taproot control block size")]
    TaprootWrongControlSize,
    #[error("Invalid Schnorr signature size")]
    SchnorrSigSize,
    #[error("Invalid Schnorr signature")]
    SchnorrSig,
    #[error("Using OP_CODESEPARATOR in non-witness script")]
    OpCodeSeparator,
    #[error("Script number overflowed or is non-minimally encoded")]
    ScriptNum,
    /// libbitcoinconsensus refuses the input and its reason is not known here.
    #[error("unknown error")]
    Unknown,
}
