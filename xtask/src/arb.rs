//! `demo`, `scenario`, `bench`, `soak`: build the program `arb` of package `arb-tests` and become it.
//!
//! Arguments are forwarded as they are, and since the process is replaced, so are signals and status.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use crate::workspace::Workspace;
use crate::{Outcome, bitcoind, process};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Dev,
    Release,
}

pub(crate) fn demo(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    run(workspace, "demo", Profile::Dev, arguments)
}

pub(crate) fn scenario(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    run(workspace, "scenario", Profile::Dev, arguments)
}

pub(crate) fn bench(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    run(workspace, "bench", Profile::Release, arguments)
}

pub(crate) fn soak(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    run(workspace, "soak", Profile::Dev, arguments)
}

fn run(
    workspace: &Workspace,
    subcommand: &str,
    profile: Profile,
    arguments: &[String],
) -> Outcome<ExitCode> {
    let bitcoind = if wants_bitcoind(arguments) { Some(bitcoind::find(workspace)?) } else { None };
    let mut command = Command::new(build(workspace, profile)?);
    command.arg(subcommand).args(arguments);
    if let Some(path) = bitcoind {
        command.env(bitcoind::VARIABLE, path);
    }
    let error = command.exec();
    Err(format!("`{}` cannot be started: {error}", process::name(&command)))
}

/// Builds the program and gives its path, as cargo tells it.
fn build(workspace: &Workspace, profile: Profile) -> Outcome<PathBuf> {
    let mut command = workspace.cargo("build");
    command.args(["--package", "arb-tests", "--bin", "arb"]);
    command.arg("--message-format=json-render-diagnostics");
    if profile == Profile::Release {
        command.arg("--release");
    }
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    let messages = process::output(command.stdin(Stdio::null()))?;
    let program = messages.lines().find_map(executable);
    program.ok_or_else(|| "cargo built arb-tests, but named no program `arb`".to_owned())
}

/// The program that a line of cargo's messages announces.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["target"]["name"] != "arb" {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

/// Whether the arguments ask for a real node: `--chain bitcoind` or `--chain=bitcoind`.
fn wants_bitcoind(arguments: &[String]) -> bool {
    arguments.iter().any(|word| word == "--chain=bitcoind")
        || arguments.windows(2).any(|pair| pair[0] == "--chain" && pair[1] == "bitcoind")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_real_node_is_looked_for_only_when_asked() {
        assert!(wants_bitcoind(&words("--json --chain bitcoind a.scn")));
        assert!(wants_bitcoind(&words("--chain=bitcoind")));
        assert!(!wants_bitcoind(&words("--chain embedded bitcoind")));
        assert!(!wants_bitcoind(&words("bitcoind --chain")));
        assert!(!wants_bitcoind(&[]));
    }

    #[test]
    fn the_program_is_read_from_cargo_messages() {
        let other =
            r#"{"reason":"compiler-artifact","target":{"name":"arb_core"},"executable":null}"#;
        let finished = r#"{"reason":"build-finished","success":true}"#;
        let arb = r#"{"reason":"compiler-artifact","target":{"name":"arb"},"executable":"/t/arb"}"#;
        assert_eq!(executable(other), None);
        assert_eq!(executable(finished), None);
        assert_eq!(executable("warning: not JSON"), None);
        assert_eq!(executable(arb), Some(PathBuf::from("/t/arb")));
    }
}
