//! A line into words, and a statement's words into positional and keyed arguments.

use super::ast::Op;
use super::error::Wrong;

/// The words of a line, without its comment.
///
/// `#` starts a comment, except where it starts a commitment number: the whole word `#n` after
/// `publish NAME remote` and `forget-since NAME`, and `#n` within a word, as in `close=remote#5`.
pub(super) fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for piece in line.split_whitespace() {
        if is_number_word(piece) && number_may_follow(&words) {
            words.push(piece);
            continue;
        }
        let end = comment_start(piece).unwrap_or(piece.len());
        let (word, comment) = piece.split_at(end);
        if !word.is_empty() {
            words.push(word);
        }
        if !comment.is_empty() {
            break;
        }
    }
    words
}

fn is_number_word(piece: &str) -> bool {
    piece.strip_prefix('#').is_some_and(|digits| {
        digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_digit() || c == '_')
    })
}

fn number_may_follow(words: &[&str]) -> bool {
    matches!(words, ["publish", _, "remote"] | ["forget-since", _])
}

fn comment_start(piece: &str) -> Option<usize> {
    let mut signs = piece.match_indices('#').map(|(at, _)| at);
    signs.find(|&at| {
        let digit_follows = piece[at + 1..].starts_with(|c: char| c.is_ascii_digit());
        at == 0 || !digit_follows
    })
}

/// A `key=value` argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed<'a> {
    pub(super) word: &'a str,
    pub(super) key: &'a str,
    pub(super) op: Op,
    pub(super) value: &'a str,
}

impl<'a> Keyed<'a> {
    fn split(word: &'a str) -> Option<Self> {
        let (left, value) = word.split_once('=')?;
        let (key, op) = if let Some(key) = left.strip_suffix('>') {
            (key, Op::AtLeast)
        } else if let Some(key) = left.strip_suffix('<') {
            (key, Op::AtMost)
        } else {
            (left, Op::Equal)
        };
        Some(Self { word, key, op, value })
    }
}

/// The arguments of one statement; what is taken is gone, what is left over is refused.
#[derive(Debug)]
pub(super) struct Args<'a> {
    positional: std::collections::VecDeque<&'a str>,
    keyed: Vec<Keyed<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> Args<'a> {
    /// Sorts words into positional and keyed ones.
    ///
    /// # Errors
    /// If a key stands twice.
    pub(super) fn new(words: &[&'a str]) -> Result<Self, Wrong> {
        let mut args = Self {
            positional: std::collections::VecDeque::new(),
            keyed: Vec::new(),
            asked: Vec::new(),
        };
        for &word in words {
            let Some(keyed) = Keyed::split(word) else {
                args.positional.push_back(word);
                continue;
            };
            if args.keyed.iter().any(|other| other.key == keyed.key) {
                return Err(Wrong::new(format!("{}= once", keyed.key), format!("{word} again")));
            }
            args.keyed.push(keyed);
        }
        Ok(args)
    }

    /// The next positional argument.
    pub(super) fn next(&mut self, expected: &str) -> Result<&'a str, Wrong> {
        self.positional.pop_front().ok_or_else(|| match self.keyed.first() {
            Some(keyed) => Wrong::new(expected, keyed.word),
            None => Wrong::new(expected, "the end of the line"),
        })
    }

    /// The next positional argument, if there is one.
    pub(super) fn next_if_any(&mut self) -> Option<&'a str> {
        self.positional.pop_front()
    }

    /// Takes a bare word, wherever among the positional arguments it stands.
    pub(super) fn flag(&mut self, word: &str) -> bool {
        let at = self.positional.iter().position(|&other| other == word);
        at.and_then(|at| self.positional.remove(at)).is_some()
    }

    /// The keyed argument, with any comparison.
    pub(super) fn compared(&mut self, key: &'static str) -> Option<Keyed<'a>> {
        self.asked.push(key);
        let at = self.keyed.iter().position(|keyed| keyed.key == key)?;
        Some(self.keyed.remove(at))
    }

    /// The value of `key=`, if it is given.
    pub(super) fn optional(&mut self, key: &'static str) -> Result<Option<&'a str>, Wrong> {
        match self.compared(key) {
            None => Ok(None),
            Some(Keyed { op: Op::Equal, value, .. }) => Ok(Some(value)),
            Some(keyed) => Err(Wrong::new(format!("{key}="), keyed.word)),
        }
    }

    /// The value of `key=`, which must be given.
    pub(super) fn required(&mut self, key: &'static str) -> Result<&'a str, Wrong> {
        self.optional(key)?.ok_or_else(|| {
            let next = self.positional.front().copied();
            let next = next.or(self.keyed.first().map(|keyed| keyed.word));
            Wrong::new(format!("{key}="), next.unwrap_or("the end of the line"))
        })
    }

    /// The first keyed argument that nobody has taken yet.
    pub(super) fn next_keyed(&mut self) -> Option<Keyed<'a>> {
        if self.keyed.is_empty() { None } else { Some(self.keyed.remove(0)) }
    }

    /// Refuses whatever has not been taken.
    pub(super) fn finish(self) -> Result<(), Wrong> {
        if let Some(word) = self.positional.front() {
            return Err(Wrong::new(self.rest(), word));
        }
        match self.keyed.first() {
            Some(keyed) => Err(Wrong::new(self.rest(), keyed.word)),
            None => Ok(()),
        }
    }

    fn rest(&self) -> String {
        if self.asked.is_empty() {
            return "the end of the line".to_owned();
        }
        let keys: Vec<String> = self.asked.iter().map(|key| format!("{key}=")).collect();
        format!("no more than {}", keys.join(" "))
    }
}
