//! Publishing through Bitcoin Core: alone with `sendrawtransaction`, together with
//! `submitpackage`.
use super::call::code;
use super::client::{CoreError, Rpc};
use super::decode::{field, odd};
use super::reject::{is_missing, verdict_of, verdict_of_error};
use arb_core::ports::{Broadcast, Package, Verdict};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, Transaction, Txid};
use serde_json::{Value, json};
use std::collections::HashMap;

const SEND: &str = "sendrawtransaction";
const SUBMIT: &str = "submitpackage";
const TEST: &str = "testmempoolaccept";

/// What the arbiter publishes is bounded by its own fee rules, so Core's guards against mistakes
/// of people are off unless set here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreBroadcastConfig {
    /// Value that provably unspendable outputs may have; 0 unless set.
    pub max_burn: Amount,
}

/// Publishes through Bitcoin Core.
///
/// The node does not remember a confirmed transaction whose outputs are all spent in blocks: it
/// is a [`Verdict::Conflict`], like any whose inputs are spent. One that is in the mempool
/// already is announced again; alone it is [`Verdict::Accepted`], in a package
/// [`Verdict::Known`].
///
/// ```
/// use arb_core::ports::{Broadcast, Package};
/// use arb_watcher::core_rpc::{CoreBroadcast, CoreBroadcastConfig, CoreError, Rpc};
///
/// /// Hands transactions over, and says what the node said of each.
/// async fn publish(rpc: Rpc, package: Package) -> Result<(), CoreError> {
///     let network = CoreBroadcast::new(rpc, CoreBroadcastConfig::default());
///     for (txid, verdict) in network.broadcast(package).await? {
///         println!("{txid}: {verdict:?}");
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct CoreBroadcast {
    rpc: Rpc,
    config: CoreBroadcastConfig,
}

/// What `submitpackage` says.
struct PackageAnswer {
    /// Of the whole; `None` if each transaction's own verdict says it all.
    package: Option<Verdict>,
    /// Of each transaction; `None` if the node did not look at it.
    transactions: Vec<Option<Verdict>>,
}

impl CoreBroadcast {
    /// Publishes through the node behind `rpc`.
    #[must_use]
    pub const fn new(rpc: Rpc, config: CoreBroadcastConfig) -> Self {
        Self { rpc, config }
    }

    /// Hands over one transaction.
    async fn send(&self, transaction: &Transaction) -> Result<Verdict, CoreError> {
        let params = vec![json!(serialize_hex(transaction)), json!(0), self.max_burn()];
        match self.rpc.request(SEND, params).await? {
            Ok(_) => Ok(Verdict::Accepted),
            Err(error) => verdict_of_error(&error).ok_or(CoreError::Node { method: SEND, error }),
        }
    }

    async fn send_each(&self, transactions: &[Transaction]) -> Result<Vec<Verdict>, CoreError> {
        let mut verdicts = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            verdicts.push(self.send(transaction).await?);
        }
        Ok(verdicts)
    }

    /// Hands over a package; `None` if the node does not take it as one: it is too old, or the
    /// package is not a child with its parents.
    async fn submit(
        &self,
        transactions: &[Transaction],
    ) -> Result<Option<PackageAnswer>, CoreError> {
        let raw: Vec<String> = transactions.iter().map(serialize_hex).collect();
        let params = vec![json!(raw), json!(0), self.max_burn()];
        let mut answer = self.rpc.request(SUBMIT, params).await?;
        if answer.as_ref().is_err_and(|error| error.code == code::MISC) {
            // A Bitcoin Core of version 26 takes the package alone.
            answer = self.rpc.request(SUBMIT, vec![json!(raw)]).await?;
        }
        let error = match answer {
            Ok(answer) => return package_answer(&answer, transactions).map(Some),
            Err(error) => error,
        };
        match error.code {
            code::METHOD_NOT_FOUND | code::INVALID_PARAMETER | code::MISC | code::VERIFY => {
                tracing::debug!(%error, "submitpackage is not possible, sending one by one");
                Ok(None)
            }
            // A transaction that does not decode is found by sending each.
            code::DESERIALIZATION => Ok(None),
            _ => Err(CoreError::Node { method: SUBMIT, error }),
        }
    }

    /// Sends again, alone, what `submitpackage` cannot judge: it does not see that a parent is in
    /// a block, and may give up before it looks at each.
    async fn settle(
        &self,
        transactions: &[Transaction],
        answer: PackageAnswer,
    ) -> Result<Vec<Verdict>, CoreError> {
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(transactions.len());
        for (transaction, verdict) in transactions.iter().zip(answer.transactions) {
            let missing = verdict.as_ref().is_none_or(is_missing);
            let parents_in = transactions
                .iter()
                .zip(&verdicts)
                .filter(|(parent, _)| spends(transaction, parent));
            let parents_in = parents_in.into_iter().all(|(_, verdict)| verdict.is_in());
            let verdict = match verdict {
                Some(verdict) if !missing => verdict,
                _ if parents_in => self.send(transaction).await?,
                // Its parents were refused as part of the package: the package says why.
                Some(verdict) => answer.package.clone().unwrap_or(verdict),
                None => match &answer.package {
                    Some(verdict) => verdict.clone(),
                    None => self.send(transaction).await?,
                },
            };
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    fn max_burn(&self) -> Value {
        // A string keeps the decimal places.
        Value::String(self.config.max_burn.to_string_in(bitcoin::Denomination::Bitcoin))
    }
}

impl Broadcast for CoreBroadcast {
    type Error = CoreError;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, CoreError> {
        let transactions = &package.transactions;
        let answer = match transactions.len() {
            0 | 1 => None,
            _ => self.submit(transactions).await?,
        };
        let verdicts = match answer {
            Some(answer) => self.settle(transactions, answer).await?,
            None => self.send_each(transactions).await?,
        };
        Ok(transactions.iter().map(Transaction::compute_txid).zip(verdicts).collect())
    }

    async fn test(&self, transaction: Transaction) -> Result<Option<Verdict>, CoreError> {
        let params = vec![json!([serialize_hex(&transaction)]), json!(0)];
        let answer = match self.rpc.request(TEST, params).await? {
            Ok(answer) => answer,
            Err(error) if error.code == code::METHOD_NOT_FOUND => return Ok(None),
            Err(error) if error.code == code::DESERIALIZATION => {
                return Ok(Some(Verdict::Refused(error.message)));
            }
            Err(error) => return Err(CoreError::Node { method: TEST, error }),
        };
        let result = answer.get(0).ok_or_else(|| odd(TEST, "no result"))?;
        if field(TEST, result, "allowed").ok().and_then(Value::as_bool) == Some(true) {
            return Ok(Some(Verdict::Accepted));
        }
        let reason = field(TEST, result, "reject-reason")?;
        let reason = reason.as_str().ok_or_else(|| odd(TEST, "reject-reason is no string"))?;
        Ok(Some(verdict_of(reason)))
    }
}

fn spends(child: &Transaction, parent: &Transaction) -> bool {
    let parent = parent.compute_txid();
    child.input.iter().any(|input| input.previous_output.txid == parent)
}

fn package_answer(
    answer: &Value,
    transactions: &[Transaction],
) -> Result<PackageAnswer, CoreError> {
    let results = field(SUBMIT, answer, "tx-results")?;
    let results = results.as_object().ok_or_else(|| odd(SUBMIT, "tx-results is no object"))?;
    // By wtxid; txids as well, because the key is not the same in all versions.
    let mut by_id: HashMap<&str, &Value> = HashMap::new();
    for (wtxid, result) in results {
        by_id.insert(wtxid, result);
        if let Some(txid) = result.get("txid").and_then(Value::as_str) {
            by_id.insert(txid, result);
        }
    }
    let verdict = |transaction: &Transaction| {
        let wtxid = transaction.compute_wtxid().to_string();
        let txid = transaction.compute_txid().to_string();
        let result = by_id.get(wtxid.as_str()).or_else(|| by_id.get(txid.as_str()))?;
        transaction_verdict(result)
    };
    let message = field(SUBMIT, answer, "package_msg")?;
    let message = message.as_str().ok_or_else(|| odd(SUBMIT, "package_msg is no string"))?;
    let package = match message {
        "success" | "transaction failed" => None,
        reason => Some(verdict_of(reason)),
    };
    Ok(PackageAnswer { package, transactions: transactions.iter().map(verdict).collect() })
}

/// `None`: the node did not look at the transaction.
fn transaction_verdict(result: &Value) -> Option<Verdict> {
    match result.get("error").and_then(Value::as_str) {
        Some("package-not-validated") => None,
        Some(reason) => Some(verdict_of(reason)),
        // The same transaction with another witness is there.
        None if result.get("other-wtxid").is_some() => Some(Verdict::Known),
        // Only a transaction that just came in has a feerate here.
        None => match result.get("fees").and_then(|fees| fees.get("effective-feerate")) {
            Some(_) => Some(Verdict::Accepted),
            None => Some(Verdict::Known),
        },
    }
}
