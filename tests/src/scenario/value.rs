//! Values: amounts, feerates, heights, counts, commitment numbers, coins, names.

use std::str::FromStr;

use bitcoin::{Amount, FeeRate};

use super::ast::{AboveTip, Coins, Compare, MilliSat};
use super::error::Wrong;
use super::lex::Keyed;

/// All bitcoin that can exist: more in one amount is a slip of the pen.
const MAX_SAT: u64 = 21_000_000 * 100_000_000;

/// A whole number; `_` may stand between digits.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let framed = digit(text.chars().next()) && digit(text.chars().next_back());
    let clean = text.chars().all(|c| c.is_ascii_digit() || c == '_');
    (framed && clean).then(|| text.replace('_', "").parse().ok()).flatten()
}

/// A whole number of at least 1.
pub(super) fn positive<T: FromStr + From<u8> + PartialOrd>(
    what: &str,
    text: &str,
) -> Result<T, Wrong> {
    let number = digits::<T>(text).filter(|number| *number >= T::from(1));
    number.ok_or_else(|| Wrong::new(format!("{what}, a whole number of at least 1"), text))
}

/// A whole number, 0 included.
pub(super) fn count<T: FromStr>(what: &str, text: &str) -> Result<T, Wrong> {
    digits(text).ok_or_else(|| Wrong::new(format!("{what}, a whole number"), text))
}

/// `50_000sat` or `1500msat`.
pub(super) fn amount(text: &str) -> Result<MilliSat, Wrong> {
    let msat = if let Some(number) = text.strip_suffix("msat") {
        digits::<u64>(number)
    } else if let Some(number) = text.strip_suffix("sat") {
        digits::<u64>(number).and_then(|sat| sat.checked_mul(1000))
    } else {
        None
    };
    msat.filter(|msat| msat / 1000 <= MAX_SAT)
        .map(MilliSat)
        .ok_or_else(|| Wrong::new("an amount like 50_000sat or 1500msat", text))
}

/// An amount of whole satoshis, for outputs.
pub(super) fn whole_sat(text: &str) -> Result<Amount, Wrong> {
    let amount = amount(text)?;
    if amount.0 % 1000 == 0 {
        Ok(amount.to_sat_rounded_down())
    } else {
        Err(Wrong::new("an amount of whole satoshis", text))
    }
}

/// `12sat/vB` or `253sat/kw`.
pub(super) fn feerate(text: &str) -> Result<FeeRate, Wrong> {
    let rate = if let Some(number) = text.strip_suffix("sat/vB") {
        digits(number).and_then(FeeRate::from_sat_per_vb)
    } else if let Some(number) = text.strip_suffix("sat/kw") {
        digits(number).map(FeeRate::from_sat_per_kwu)
    } else {
        None
    };
    // A feerate whose fees overflow could never be paid.
    rate.filter(|rate| rate.to_sat_per_kwu() <= MAX_SAT)
        .ok_or_else(|| Wrong::new("a feerate like 12sat/vB or 253sat/kw", text))
}

/// `+40`.
pub(super) fn above_tip(text: &str) -> Result<AboveTip, Wrong> {
    let blocks = text.strip_prefix('+').and_then(digits);
    blocks.map(AboveTip).ok_or_else(|| Wrong::new("a height above the tip like +40", text))
}

/// `#5`.
pub(super) fn commitment_number(text: &str) -> Result<u64, Wrong> {
    let number = text.strip_prefix('#').and_then(digits::<u64>);
    // BOLT 3: commitment numbers have 48 bits.
    number
        .filter(|number| *number < 1 << 48)
        .ok_or_else(|| Wrong::new("a commitment number like #5", text))
}

/// `10x100_000sat`, or several of these with commas between.
pub(super) fn coins(text: &str) -> Result<Vec<Coins>, Wrong> {
    let group = |text: &str| {
        let wrong = || Wrong::new("coins like 10x100_000sat", text);
        let (number, value) = text.split_once('x').ok_or_else(wrong)?;
        let value = whole_sat(value).map_err(|_| wrong())?;
        Ok(Coins { count: digits(number).ok_or_else(wrong)?, value })
    };
    text.split(',').map(group).collect()
}

/// One word of a fixed choice.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Wrong> {
    let found = choices.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        Wrong::new(one_of(&words), text)
    })
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => (*only).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// A name: letters, digits, `_` and `-`.
pub(super) fn name<'a>(what: &str, text: &'a str) -> Result<&'a str, Wrong> {
    let fine = !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        && !text.starts_with('-');
    if fine {
        Ok(text)
    } else {
        Err(Wrong::new(format!("{what} of letters, digits, _ and -"), text))
    }
}

/// A number that an expectation compares.
pub(super) fn compare<T>(
    keyed: Keyed<'_>,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Result<Compare<T>, Wrong> {
    Ok(Compare { op: keyed.op, value: parse(keyed.value)? })
}
