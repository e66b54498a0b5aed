//! Rust source with comments and literals blanked out, so that a rule sees code alone.

/// The text with the same lines, in which comments, strings and characters are blanks.
pub(super) fn blanked(text: &str) -> String {
    let mut scanner = Scanner { text: text.chars().collect(), at: 0, code: String::new() };
    while let Some(next) = scanner.peek(0) {
        match next {
            '/' if scanner.peek(1) == Some('/') => scanner.line_comment(),
            '/' if scanner.peek(1) == Some('*') => scanner.block_comment(),
            '"' => scanner.string(),
            '\'' => scanner.character_or_lifetime(),
            c if is_word(c) => scanner.word(),
            _ => scanner.keep(),
        }
    }
    scanner.code
}

/// The numbers of the lines of blanked code in which that identifier stands.
pub(super) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let has = |line: &str| line.split(|c| !is_word(c)).any(|found| found == word);
    numbered(code).filter(|(_, line)| has(line)).map(|(number, _)| number).collect()
}

/// The numbers of the lines in which that text stands.
pub(super) fn lines_with(code: &str, text: &str) -> Vec<usize> {
    numbered(code).filter(|(_, line)| line.contains(text)).map(|(number, _)| number).collect()
}

/// Lines with their numbers, from 1.
pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Scanner {
    text: Vec<char>,
    at: usize,
    code: String,
}

impl Scanner {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        self.code.extend(self.peek(0));
        self.at += 1;
    }

    fn blank(&mut self, count: usize) {
        for _ in 0..count {
            match self.peek(0) {
                Some('\n') => self.code.push('\n'),
                Some(_) => self.code.push(' '),
                None => return,
            }
            self.at += 1;
        }
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.blank(1);
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => (depth, _) = (depth + 1, self.blank(2)),
                (Some('*'), Some('/')) => (depth, _) = (depth - 1, self.blank(2)),
                (Some(_), _) => self.blank(1),
                (None, _) => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.blank(1);
        while let Some(c) = self.peek(0) {
            self.blank(if c == '\\' { 2 } else { 1 });
            if c == '"' {
                return;
            }
        }
    }

    fn character_or_lifetime(&mut self) {
        match (self.peek(1), self.peek(2)) {
            (Some('\\'), _) => {
                self.blank(3);
                while self.peek(0).is_some_and(|c| c != '\'') {
                    self.blank(1);
                }
                self.blank(1);
            }
            (_, Some('\'')) => self.blank(3),
            _ => self.keep(),
        }
    }

    /// An identifier or number, or the prefix of a raw string.
    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.keep();
        }
        let word: String = self.text[start..self.at].iter().collect();
        if matches!(word.as_str(), "r" | "br" | "cr") {
            let hashes = (0..).take_while(|&n| self.peek(n) == Some('#')).count();
            if self.peek(hashes) == Some('"') {
                self.raw_string(hashes);
            }
        }
    }

    fn raw_string(&mut self, hashes: usize) {
        self.blank(hashes + 1);
        while let Some(c) = self.peek(0) {
            self.blank(1);
            if c == '"' && (0..hashes).all(|n| self.peek(n) == Some('#')) {
                return self.blank(hashes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_become_blanks() {
        let cases = [
            ("a // b\nc", "a c"),
            ("a /* b /* c */ d */ e", "a e"),
            ("f(\"x \\\" y\") + z", "f( ) + z"),
            ("r#\"a \" b\"# + c", "r + c"),
            ("br\"x\" ;", "br ;"),
            ("'a' x 'b'", "x"),
            ("'\\'' + x", "+ x"),
            ("'\\u{1F}' + x", "+ x"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("r#type", "r#type"),
            ("\"// no\" x // yes", "x"),
        ];
        for (text, words) in cases {
            let code = blanked(text);
            assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), words, "{text}");
            assert_eq!(code.chars().count(), text.chars().count(), "{text}");
            assert_eq!(code.lines().count(), text.lines().count(), "{text}");
        }
    }

    #[test]
    fn unfinished_text_ends() {
        for text in ["\"abc", "/* abc", "r#\"abc\"", "'\\", "\"\\", "'"] {
            assert_eq!(blanked(text).chars().count(), text.chars().count(), "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        let code = "use heed::Env;\nlet heeded = x_heed;\nfn heed() {}";
        assert_eq!(lines_with_word(code, "heed"), [1, 3]);
    }
}
