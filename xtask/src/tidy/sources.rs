//! Rules on one source file.

use std::path::Path;

use super::Violation;
use super::code::{blanked, lines_with, lines_with_word, numbered};

/// Above this many lines a file holds more than one thought.
const LONGEST_FILE: usize = 600;

/// Names that may stand only below certain folders.
const CONFINED: &[(&str, &[&str])] =
    &[("heed", &["arb-store", "tests/src/bench"]), ("lightning", &["arb-node-adapter", "tests"])];

/// Folders whose code must not name `tokio`.
const WITHOUT_TOKIO: &[&str] = &["arb-core/src", "arb-store/src"];

/// Code that stands for work not done, or for a test that does not run.
const UNFINISHED: &[&str] = &["todo!(", "unimplemented!(", "#[ignore"];

/// Every rule, on the text of the file at `path` (relative to the root).
pub(super) fn check(path: &Path, text: &str) -> Vec<Violation> {
    let code = blanked(text);
    let mut found = Vec::new();
    found.extend(head(path, text));
    found.extend(length(path, text));
    found.extend(unfinished(path, text, &code));
    found.extend(confined(path, &code));
    if path == Path::new("arb-core/src/lib.rs") {
        found.extend(no_std(path, &code));
    }
    found
}

/// The first line says which room of the house this is.
fn head(path: &Path, text: &str) -> Option<Violation> {
    let first = text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
    (!says).then(|| Violation::new(path, 1, "the file does not begin with a `//!` head"))
}

fn length(path: &Path, text: &str) -> Option<Violation> {
    let lines = text.lines().count();
    (lines > LONGEST_FILE).then(|| {
        Violation::new(path, lines, format!("{lines} lines, of {LONGEST_FILE} that are allowed"))
    })
}

fn unfinished(path: &Path, text: &str, code: &str) -> Vec<Violation> {
    let in_code = UNFINISHED.iter().flat_map(|&mark| {
        let rule = move |line| Violation::new(path, line, format!("`{mark}` is left in the code"));
        lines_with(code, mark).into_iter().map(rule)
    });
    let skipped = numbered(text).filter(|(_, line)| is_ignored_example(line)).map(|(line, _)| {
        Violation::new(path, line, "an example of the documentation is not compiled")
    });
    in_code.chain(skipped).collect()
}

fn is_ignored_example(line: &str) -> bool {
    let line = line.trim_start();
    let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
    comment.is_some_and(|words| words.trim_start().starts_with("```ignore"))
}

fn confined(path: &Path, code: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, homes) in CONFINED {
        if !homes.iter().any(|home| path.starts_with(home)) {
            let rule = format!("`{name}` is named outside {}", homes.join(" and "));
            let lines = lines_with_word(code, name);
            found.extend(lines.into_iter().map(|line| Violation::new(path, line, rule.clone())));
        }
    }
    if WITHOUT_TOKIO.iter().any(|folder| path.starts_with(folder)) {
        let lines = lines_with_word(code, "tokio");
        let rule = "`tokio` is named in a crate that must do without";
        found.extend(lines.into_iter().map(|line| Violation::new(path, line, rule)));
    }
    found
}

/// `no_std` holds in tests as well: a condition on it would hide a use of std.
fn no_std(path: &Path, code: &str) -> Option<Violation> {
    let found = code.lines().any(|line| line.trim() == "#![no_std]");
    (!found).then(|| Violation::new(path, 1, "arb-core is not `#![no_std]` unconditionally"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, String)> {
        check(Path::new(path), text).into_iter().map(|v| (v.line, v.rule)).collect()
    }

    fn one(path: &str, text: &str, line: usize, part: &str) {
        let found = rules(path, text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, line);
        assert!(found[0].1.contains(part), "{found:?}");
    }

    fn clean(path: &str, text: &str) {
        assert_eq!(rules(path, text), [], "{path}");
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        one("arb-store/src/a.rs", "use x;\n//! Late.\n", 1, "head");
        one("arb-store/src/a.rs", "//!\nuse x;\n", 1, "head");
        one("arb-store/src/a.rs", "", 1, "head");
        clean("arb-store/src/a.rs", "//! A room.\nuse x;\n");
    }

    #[test]
    fn a_long_file_is_found() {
        let text = |lines: usize| format!("//! A room.\n{}", "\n".repeat(lines - 1));
        clean("arb-store/src/a.rs", &text(600));
        one("arb-store/src/a.rs", &text(601), 601, "601 lines");
    }

    #[test]
    fn unfinished_work_is_found() {
        one("tests/src/a.rs", "//! A.\nfn f() { todo!() }\n", 2, "todo!(");
        one("tests/src/a.rs", "//! A.\n\nfn f() { unimplemented!(\"x\") }\n", 3, "unimplemented!(");
        one("tests/src/a.rs", "//! A.\n#[ignore = \"slow\"]\nfn f() {}\n", 2, "#[ignore");
        one(
            "tests/src/a.rs",
            "//! A.\n/// ```ignore\n/// f()\n/// ```\nfn f() {}\n",
            2,
            "compiled",
        );
        clean("tests/src/a.rs", "//! A.\n// no todo!() here\nlet s = \"#[ignore]\";\n");
    }

    #[test]
    fn a_name_outside_its_home_is_found() {
        one("arb-core/src/a.rs", "//! A.\nuse heed::Env;\n", 2, "outside arb-store");
        clean("tests/src/bench/a.rs", "//! A.\nuse heed::Env;\n");
        one("tests/src/a.rs", "//! A.\nuse heed::Env;\n", 2, "outside arb-store");
        one(
            "arb-watcher/src/a.rs",
            "//! A.\nuse lightning::ln;\n",
            2,
            "arb-node-adapter and tests",
        );
        clean("arb-store/src/a.rs", "//! A.\nuse heed::Env;\n");
        clean("tests/tests/it/a.rs", "//! A.\nuse lightning::ln;\n");
        clean("arb-node-adapter/src/a.rs", "//! A.\nuse lightning::ln;\n");
        clean("arb-core/src/a.rs", "//! A.\n// heed and lightning\nlet lightning_node = 1;\n");
    }

    #[test]
    fn tokio_is_found_where_it_must_not_be() {
        one("arb-core/src/a.rs", "//! A.\nasync fn f() { tokio::spawn(x) }\n", 2, "tokio");
        one("arb-store/src/a.rs", "//! A.\npub use tokio::sync;\n", 2, "tokio");
        clean("arb-watcher/src/a.rs", "//! A.\nuse tokio::sync;\n");
        clean("arb-store/tests/a.rs", "//! A.\nuse tokio::sync;\n");
    }

    #[test]
    fn a_conditional_no_std_is_found() {
        let core = "arb-core/src/lib.rs";
        one(core, "//! A.\n#![cfg_attr(not(test), no_std)]\n", 1, "no_std");
        one(core, "//! A.\n// #![no_std]\n", 1, "no_std");
        clean(core, "//! A.\n#![no_std]\n");
        clean("arb-core/src/a.rs", "//! A.\n");
    }
}
