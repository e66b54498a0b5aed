//! Tests of the client against a scripted HTTP server, and of the ports against scripted answers.
mod http;
mod layers;
mod ports;
mod server;

use super::*;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::{BoxError, service_fn};

/// Answers to one call.
type Answers = Result<Vec<Result<Value, RpcError>>, BoxError>;

/// What was asked, in order.
type Heard = Arc<Mutex<Vec<RpcRequest>>>;

/// A client whose calls get these answers, one after the other.
fn scripted(script: Vec<Answers>) -> (Rpc, Heard) {
    let heard = Heard::default();
    let script = Arc::new(Mutex::new(VecDeque::from(script)));
    let ears = Arc::clone(&heard);
    let rpc = Rpc::new(service_fn(move |call: RpcCall| {
        ears.lock().unwrap().extend(call.requests().iter().cloned());
        let answers = script.lock().unwrap().pop_front().expect("no more calls");
        ready(answers.map(|results| RpcReply { results }))
    }));
    (rpc, heard)
}

fn methods(heard: &Heard) -> Vec<&'static str> {
    heard.lock().unwrap().iter().map(|request| request.method).collect()
}

fn says(value: Value) -> Answers {
    Ok(vec![Ok(value)])
}

fn fails(code: i64, message: &str) -> Answers {
    Ok(vec![Err(error(code, message))])
}

fn error(code: i64, message: &str) -> RpcError {
    RpcError { code, message: message.to_owned() }
}

fn refused() -> BoxError {
    let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    TransportError::Connect { address: "node".to_owned(), source }.into()
}
