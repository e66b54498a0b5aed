//! A call and its reply as values, and their JSON.
use super::transport::TransportError;
use serde_json::{Map, Value, json};
use std::fmt;
use std::sync::Arc;

/// Error codes of Bitcoin Core's JSON-RPC that are acted upon.
pub(super) mod code {
    /// General error; also an unknown or surplus argument.
    pub(crate) const MISC: i64 = -1;
    /// Unknown block or transaction.
    pub(crate) const NOT_FOUND: i64 = -5;
    /// A parameter is out of range.
    pub(crate) const INVALID_PARAMETER: i64 = -8;
    /// The transaction does not decode.
    pub(crate) const DESERIALIZATION: i64 = -22;
    /// The transaction is invalid, or its inputs are missing or spent.
    pub(crate) const VERIFY: i64 = -25;
    /// The transaction is refused by the mempool.
    pub(crate) const REJECTED: i64 = -26;
    /// The transaction is in a block already.
    pub(crate) const IN_UTXO_SET: i64 = -27;
    /// The node starts up and cannot answer yet.
    pub(crate) const WARMUP: i64 = -28;
    /// The node does not know the method.
    pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
}

/// One request: a method and its positional parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcRequest {
    /// Name of the method.
    pub method: &'static str,
    /// Parameters by position.
    pub params: Vec<Value>,
}

/// One or more requests that travel together; several are sent as a JSON-RPC batch. Cheap to
/// clone, so that a call can be repeated.
///
/// ```
/// use arb_watcher::core_rpc::{RpcCall, RpcRequest};
///
/// let request = |method| RpcRequest { method, params: vec![] };
/// let call = RpcCall::new(vec![request("getbestblockhash"), request("getmempoolinfo")]);
/// assert_eq!(call.requests().len(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct RpcCall {
    requests: Arc<[RpcRequest]>,
}

/// The node's answers, one a request, in the order of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcReply {
    /// Result or error of each request.
    pub results: Vec<Result<Value, RpcError>>,
}

/// An error that the node itself answered with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// Bitcoin Core's error code.
    pub code: i64,
    /// Its message.
    pub message: String,
}

impl RpcCall {
    /// A call of several requests.
    #[must_use]
    pub fn new(requests: Vec<RpcRequest>) -> Self {
        Self { requests: requests.into() }
    }

    /// The requests.
    #[must_use]
    pub fn requests(&self) -> &[RpcRequest] {
        &self.requests
    }

    /// JSON of the call. Ids are positions: one call has a connection to itself.
    pub(super) fn encode(&self) -> String {
        let one = |(id, request): (usize, &RpcRequest)| {
            json!({
                "jsonrpc": "2.0",
                "id": id,
                "method": request.method,
                "params": request.params,
            })
        };
        let mut all: Vec<Value> = self.requests.iter().enumerate().map(one).collect();
        match all.len() {
            1 => all.remove(0).to_string(),
            _ => Value::Array(all).to_string(),
        }
    }

    /// The reply to this call, read from JSON.
    pub(super) fn decode(&self, body: &[u8]) -> Result<RpcReply, TransportError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| TransportError::Malformed(error.to_string()))?;
        let answers = match value {
            Value::Array(answers) => answers,
            answer @ Value::Object(_) => vec![answer],
            _ => return Err(malformed("neither an object nor an array")),
        };
        let mut results = vec![None; self.requests.len()];
        for answer in answers {
            let Value::Object(answer) = answer else {
                return Err(malformed("an answer is not an object"));
            };
            let (id, result) = decode_answer(answer)?;
            match id.and_then(|id| results.get_mut(id)) {
                Some(slot @ None) => *slot = Some(result),
                Some(Some(_)) => return Err(malformed("two answers to one request")),
                // A batch that the node refuses as a whole has an answer without an id.
                None => return Err(unasked(result)),
            }
        }
        let results: Option<Vec<_>> = results.into_iter().collect();
        results.map(|results| RpcReply { results }).ok_or_else(|| malformed("an answer is missing"))
    }
}

impl RpcReply {
    /// The error by which the node says that it is still starting up, if it does.
    #[must_use]
    pub fn warmup(&self) -> Option<&RpcError> {
        let errors = self.results.iter().filter_map(|result| result.as_ref().err());
        errors.into_iter().find(|error| error.code == code::WARMUP)
    }
}

fn malformed(what: impl fmt::Display) -> TransportError {
    TransportError::Malformed(what.to_string())
}

fn unasked(result: Result<Value, RpcError>) -> TransportError {
    match result {
        Ok(_) => malformed("an answer to no request"),
        Err(error) => malformed(error),
    }
}

type Answer = (Option<usize>, Result<Value, RpcError>);

fn decode_answer(mut answer: Map<String, Value>) -> Result<Answer, TransportError> {
    let id = answer.get("id").and_then(Value::as_u64).and_then(|id| usize::try_from(id).ok());
    // Version 1 answers have both fields, one of them null; version 2 answers have one.
    let result = match answer.remove("error") {
        None | Some(Value::Null) => {
            Ok(answer.remove("result").ok_or_else(|| malformed("neither result nor error"))?)
        }
        Some(error) => Err(RpcError {
            code: error
                .get("code")
                .and_then(Value::as_i64)
                .ok_or_else(|| malformed("an error without a code"))?,
            message: error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }),
    };
    Ok((id, result))
}
