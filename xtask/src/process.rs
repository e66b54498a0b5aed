//! Child processes: run one, and say clearly which one failed and how.

use std::process::{Command, ExitStatus, Stdio};

use crate::Outcome;

/// What the command prints; its error output goes through.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let name = name(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("`{name}` cannot be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("`{name}` failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{name}` did not print UTF-8"))
}

/// Whether the command can be started and succeeds, without a word.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// Runs the command to its end.
pub(crate) fn status(command: &mut Command) -> Outcome<ExitStatus> {
    command.status().map_err(|e| format!("`{}` cannot be started: {e}", name(command)))
}

/// Runs the command to its end; anything but success is an error.
pub(crate) fn check(command: &mut Command) -> Outcome<()> {
    let status = status(command)?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed: {status}", name(command))) }
}

/// The command as one would type it.
pub(crate) fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failing_command_is_named_with_its_status() {
        let failure = check(&mut shell("exit 3")).unwrap_err();
        assert!(failure.contains("sh -c exit 3") && failure.contains('3'), "{failure}");
        assert!(check(&mut shell("exit 0")).is_ok());
        assert!(!succeeds(&mut shell("exit 1")));
        assert!(succeeds(&mut shell("exit 0")));
    }

    #[test]
    fn output_is_what_was_printed() {
        assert_eq!(output(&mut shell("echo a; echo b")).unwrap(), "a\nb\n");
        assert!(output(&mut shell("echo a; exit 1")).is_err());
        assert!(output(&mut Command::new("no-such-program")).is_err());
    }
}
