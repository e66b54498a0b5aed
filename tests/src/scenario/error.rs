//! What a file that does not parse is answered with.

use core::fmt;

/// A line that the language does not allow, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: expected {expected}, found {found}")]
pub struct ParseError {
    /// The file's name, as it was given to the parser.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What the language allows at that place.
    pub expected: String,
    /// What stands there instead.
    pub found: String,
}

/// A [`ParseError`] before it knows its file and line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) expected: String,
    pub(super) found: String,
}

impl Wrong {
    pub(super) fn new(expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { expected: expected.to_string(), found: found.to_string() }
    }

    pub(super) fn at(self, file: &str, line: usize) -> ParseError {
        ParseError { file: file.to_owned(), line, expected: self.expected, found: self.found }
    }
}
