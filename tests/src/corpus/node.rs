//! What Bitcoin Core says.

use std::collections::BTreeSet;

use arb_watcher::core_rpc::{CoreError, Rpc, RpcRequest};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, Transaction, Txid};
use serde_json::{Value, json};

use super::answer::{NOT_EVALUATED, OK, OTHER_WITNESS, class};

/// Core's words for a transaction that its mempool has, with this witness or with another.
const IN_ALREADY: &[&str] = &["txn-already-in-mempool", "txn-same-nonwitness-data-in-mempool"];

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A call failed.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// An answer is not understood.
    #[error("the node's answer is not understood: {0}")]
    Answer(String),
    /// A block of the embedded chain is refused.
    #[error("block {height} is refused: {reason}")]
    Block {
        /// Its height.
        height: u64,
        /// Core's reason.
        reason: String,
    },
}

/// The mempool of a node on regtest.
#[derive(Clone, Debug)]
pub struct CoreMempool(Rpc);

impl CoreMempool {
    /// The mempool of the node behind a client. Its chain must be the genesis block alone.
    #[must_use]
    pub const fn new(rpc: Rpc) -> Self {
        Self(rpc)
    }

    /// The node's name and version, as it tells its peers.
    ///
    /// # Errors
    /// If the node cannot be asked.
    pub async fn version(&self) -> Result<String, CorpusError> {
        let info = self.0.call("getnetworkinfo", vec![]).await?;
        Ok(info["subversion"].as_str().unwrap_or_default().trim_matches('/').to_owned())
    }

    pub(super) async fn connect(&self, block: &Block) -> Result<(), CorpusError> {
        let answer = self.0.call("submitblock", vec![json!(serialize_hex(block))]).await?;
        match answer.as_str() {
            None => Ok(()),
            Some(reason) => Err(CorpusError::Block {
                height: block.bip34_block_height().unwrap_or_default(),
                reason: reason.to_owned(),
            }),
        }
    }

    /// Tests a transaction and hands it in; both must be of one mind.
    pub(super) async fn submit(&self, tx: &Transaction) -> Result<String, CorpusError> {
        let raw = serialize_hex(tx);
        let burn = json!(21_000_000);
        let calls = vec![
            RpcRequest { method: "testmempoolaccept", params: vec![json!([raw]), json!(0)] },
            RpcRequest { method: "sendrawtransaction", params: vec![json!(raw), json!(0), burn] },
        ];
        let mut answers = self.0.batch(calls).await?.into_iter();
        let (Some(Ok(tested)), Some(sent)) = (answers.next(), answers.next()) else {
            return Err(CorpusError::Answer("no two results".to_owned()));
        };
        let tested = &tested[0];
        let reason = tested["reject-reason"].as_str().map(full).map(class);
        match (tested["allowed"] == json!(true), reason, sent) {
            (true, None, Ok(_)) => Ok(OK.to_owned()),
            (false, Some(reason), Err(_)) => Ok(reason),
            // What is in already is announced again.
            (false, Some(reason), Ok(_)) if IN_ALREADY.contains(&&*reason) => Ok(reason),
            (_, _, sent) => Err(CorpusError::Answer(format!("tested: {tested}, sent: {sent:?}"))),
        }
    }

    pub(super) async fn package(
        &self,
        package: &[Transaction],
    ) -> Result<Vec<String>, CorpusError> {
        let raw: Vec<String> = package.iter().map(serialize_hex).collect();
        let params = vec![json!(raw), json!(0), json!(21_000_000)];
        let answer = match self.0.call("submitpackage", params).await {
            Ok(answer) => answer,
            Err(CoreError::Node { error, .. }) => {
                let each = package.iter().map(|_| NOT_EVALUATED.to_owned());
                return Ok(std::iter::once(class(&error.message)).chain(each).collect());
            }
            Err(error) => return Err(error.into()),
        };
        let whole = match answer["package_msg"].as_str() {
            Some("success") => OK.to_owned(),
            Some(reason) => class(reason),
            None => return Err(CorpusError::Answer(answer.to_string())),
        };
        let each = package.iter().map(|tx| {
            let result = &answer["tx-results"][tx.compute_wtxid().to_string()];
            verdict(result)
        });
        Ok(std::iter::once(whole).chain(each).collect())
    }

    /// Which of these it holds.
    pub(super) async fn which(&self, txids: &[Txid]) -> Result<BTreeSet<Txid>, CorpusError> {
        let ask = |txid: &Txid| RpcRequest {
            method: "getmempoolentry",
            params: vec![json!(txid.to_string())],
        };
        let answers = self.0.batch(txids.iter().map(ask).collect()).await?;
        let held = txids.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
        Ok(held.map(|(txid, _)| *txid).collect())
    }

    /// All that it holds.
    pub(super) async fn content(&self) -> Result<BTreeSet<Txid>, CorpusError> {
        let answer = self.0.call("getrawmempool", vec![]).await?;
        let txids = answer.as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(txids.filter_map(|txid| txid.parse().ok()).collect())
    }
}

/// The result on one transaction of a package.
fn verdict(result: &Value) -> String {
    if result.get("other-wtxid").is_some() {
        OTHER_WITNESS.to_owned()
    } else {
        match result["error"].as_str() {
            None => OK.to_owned(),
            Some("unevaluated" | "package-not-validated") => NOT_EVALUATED.to_owned(),
            Some(reason) => class(reason),
        }
    }
}

/// The reason that `testmempoolaccept` shortens.
fn full(reason: &str) -> &str {
    if reason == "missing-inputs" { "bad-txns-inputs-missingorspent" } else { reason }
}
