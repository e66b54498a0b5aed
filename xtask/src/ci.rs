//! `ci`: the script `.ci/run`, which holds the steps and prints the table of their times.

use std::process::{Command, ExitCode};

use crate::workspace::Workspace;
use crate::{Outcome, no_arguments, process};

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    no_arguments("ci", arguments)?;
    let mut command = Command::new("bash");
    command.arg(workspace.root.join(".ci/run")).current_dir(&workspace.root);
    // Set by the cargo that runs this task; the script's own cargo calls must not inherit them.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let status = process::status(&mut command)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
