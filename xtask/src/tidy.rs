//! `tidy`: the laws of the workspace that no compiler checks, from manifests, sources and cargo.
//!
//! Each rule is a function from text to violations, so that each is tested on a sample that breaks
//! it. The length of functions is clippy's business (`too_many_lines`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::workspace::Workspace;
use crate::{Outcome, no_arguments};

mod closure;
mod code;
mod manifests;
mod no_std;
mod sources;

/// One broken rule at one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    path: PathBuf,
    line: usize,
    rule: String,
}

impl Violation {
    fn new(path: &Path, line: usize, rule: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule: rule.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.rule)
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    no_arguments("tidy", arguments)?;
    let mut violations = Vec::new();
    let files = workspace.files("", "rs")?;
    for path in &files {
        violations.extend(sources::check(path, &workspace.read(path)?));
    }
    violations.extend(manifests::check(workspace)?);
    violations.extend(closure::check(workspace)?);
    violations.extend(no_std::check(workspace)?);
    violations.sort();
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!("tidy: {} source files and their manifests are clean", files.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} violations", violations.len());
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_one_line_that_editors_understand() {
        let violation = Violation::new(Path::new("a/src/b.rs"), 7, "no head");
        assert_eq!(violation.to_string(), "a/src/b.rs:7: no head");
    }
}
