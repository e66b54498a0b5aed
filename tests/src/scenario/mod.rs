//! The scenario language: what a `.scn` file may say, and its parser.
//!
//! A scenario tells one story of one or more channels. `docs/scenarios.md` is the page of the
//! language; this module turns a text into a typed [`Scenario`] in which every default is filled
//! in, every name is resolved and every statement knows its line.

pub mod ast;
mod error;
mod later;
pub(crate) mod ldk;
mod lex;
mod names;
mod parse;
mod value;

#[cfg(test)]
mod tests;

pub use ast::Scenario;
pub use error::ParseError;
pub use later::unsupported;
pub use parse::parse;
