//! Answers of the node as values of this crate.
use super::client::CoreError;
use bitcoin::consensus::encode::{Decodable, deserialize};
use bitcoin::hex::FromHex;
use bitcoin::{Amount, FeeRate};
use serde_json::Value;
use std::fmt::Display;
use std::str::FromStr;

/// An answer that is not understood.
pub(super) fn odd(method: &'static str, what: impl Display) -> CoreError {
    CoreError::Answer { method, what: what.to_string() }
}

/// A field of an object.
pub(super) fn field<'a>(
    method: &'static str,
    answer: &'a Value,
    name: &str,
) -> Result<&'a Value, CoreError> {
    answer.get(name).ok_or_else(|| odd(method, format_args!("{name} is missing")))
}

/// A string that reads as a `T`, such as a txid.
pub(super) fn parsed<T>(method: &'static str, value: &Value) -> Result<T, CoreError>
where
    T: FromStr,
    T::Err: Display,
{
    let text = value.as_str().ok_or_else(|| odd(method, "a string is expected"))?;
    text.parse().map_err(|error| odd(method, error))
}

/// A consensus-encoded object in hex. Rules of consensus about it are the node's affair.
pub(super) fn decoded<T: Decodable>(method: &'static str, value: &Value) -> Result<T, CoreError> {
    let text = value.as_str().ok_or_else(|| odd(method, "hex is expected"))?;
    let bytes = Vec::<u8>::from_hex(text).map_err(|error| odd(method, error))?;
    deserialize(&bytes).map_err(|error| odd(method, error))
}

/// A height.
pub(super) fn height(method: &'static str, value: &Value) -> Result<u32, CoreError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| odd(method, "a height is expected"))
}

/// A feerate in BTC per 1000 virtual bytes, rounded up to whole satoshis per 1000 weight units:
/// what is to meet a floor must not fall below it.
pub(super) fn feerate(method: &'static str, value: &Value) -> Result<FeeRate, CoreError> {
    let number = value.as_f64().ok_or_else(|| odd(method, "a feerate is expected"))?;
    let per_kvb = Amount::from_btc(number).map_err(|error| odd(method, error))?;
    Ok(FeeRate::from_sat_per_kwu(per_kvb.to_sat().div_ceil(4)))
}

/// A parameter by its display form, such as a txid.
pub(super) fn text(value: impl Display) -> Value {
    Value::String(value.to_string())
}
