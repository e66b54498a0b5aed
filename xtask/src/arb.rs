//! `demo`, `scenario`, `bench`, `soak`: build the program `arb` of package `arb-tests` and become it;
//! `ldk-node`: the same with its example.
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

/// The example of two LDK nodes.
const LDK_NODE: &str = "ldk_node";

pub(crate) fn demo(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    run(workspace, "demo", Profile::Dev, arguments)
}

pub(crate) fn ldk_node(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    become_program(workspace, build(workspace, Profile::Dev, LDK_NODE)?, &[], arguments)
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
    become_program(workspace, build(workspace, profile, "arb")?, &[subcommand], arguments)
}

fn become_program(
    workspace: &Workspace,
    program: PathBuf,
    first: &[&str],
    arguments: &[String],
) -> Outcome<ExitCode> {
    let bitcoind = if wants_bitcoind(arguments) { Some(bitcoind::find(workspace)?) } else { None };
    let mut command = Command::new(program);
    command.args(first).args(arguments);
    if let Some(path) = bitcoind {
        command.env(bitcoind::VARIABLE, path);
    }
    let error = command.exec();
    Err(format!("`{}` cannot be started: {error}", process::name(&command)))
}

/// Builds a program and gives its path, as cargo tells it.
///
/// Which features a dependency has depends on the packages that are selected, and on whether an
/// example is among the targets. In the dev profile both are as for `cargo test --workspace`: what
/// that has compiled is not compiled again.
fn build(workspace: &Workspace, profile: Profile, name: &str) -> Outcome<PathBuf> {
    let mut command = workspace.cargo("build");
    match profile {
        Profile::Dev => command.args(["--workspace", "--bin", "arb", "--example", LDK_NODE]),
        Profile::Release => command.args(["--release", "--package", "arb-tests", "--bin", "arb"]),
    };
    command.arg("--message-format=json-render-diagnostics");
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    let messages = process::output(command.stdin(Stdio::null()))?;
    let program = messages.lines().find_map(|message| executable(message, name));
    program.ok_or_else(|| format!("cargo built arb-tests, but named no program `{name}`"))
}

/// The program of this name, if a line of cargo's messages announces it.
fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["target"]["name"] != name {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

/// Whether the arguments ask for a real node: `--chain bitcoind`, `--chain=bitcoind`, and
/// `--bitcoind` for the example.
fn wants_bitcoind(arguments: &[String]) -> bool {
    arguments.iter().any(|word| word == "--chain=bitcoind" || word == "--bitcoind")
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
        assert!(wants_bitcoind(&words("--bitcoind")));
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
        assert_eq!(executable(other, "arb"), None);
        assert_eq!(executable(finished, "arb"), None);
        assert_eq!(executable("warning: not JSON", "arb"), None);
        assert_eq!(executable(arb, "arb"), Some(PathBuf::from("/t/arb")));
        assert_eq!(executable(arb, LDK_NODE), None);
    }
}
