//! The front door of the workspace's tasks: reads a task's name and hands the rest of the line to it.
//!
//! No workspace crate is a dependency of this one, so that it compiles in seconds.

mod arb;
mod bitcoind;
mod bolt;
mod ci;
mod process;
mod tidy;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

/// A failure of a task, in words for the person who ran it.
type Outcome<T> = Result<T, String>;

struct Task {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&Workspace, &[String]) -> Outcome<ExitCode>,
}

const TASKS: &[Task] = &[
    Task {
        name: "demo",
        arguments: "[--chain embedded|bitcoind] [--json]",
        about: "36 channels closed in every way, claimed, punished, resolved",
        run: arb::demo,
    },
    Task {
        name: "scenario",
        arguments: "[--chain embedded|bitcoind] [--trace] [--crash-everywhere] [--json] FILES",
        about: "runs scenario files; status 1 if one fails, 2 if one does not parse",
        run: arb::scenario,
    },
    Task {
        name: "bench",
        arguments: "[NAME] [--json]",
        about: "benchmarks, compiled with --release",
        run: arb::bench,
    },
    Task {
        name: "soak",
        arguments: "[--minutes N] [--seed N] [--json]",
        about: "channels come and go by chance; status 1 if memory, tasks or the store grow",
        run: arb::soak,
    },
    Task {
        name: "ldk-node",
        arguments: "[--bitcoind]",
        about: "LDK nodes with the arbiter beside them: both views, in every mode",
        run: arb::ldk_node,
    },
    Task {
        name: "bitcoind",
        arguments: "",
        about: "prints the path of a bitcoind, which it builds if there is none",
        run: bitcoind::run,
    },
    Task {
        name: "tidy",
        arguments: "",
        about: "checks the laws of the workspace that no compiler checks",
        run: tidy::run,
    },
    Task {
        name: "bolt",
        arguments: "",
        about: "lists the requirements and incidents that no scenario or test names",
        run: bolt::run,
    },
    Task {
        name: "ci",
        arguments: "",
        about: "every step of .ci/run in order, with a table of times",
        run: ci::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(status) => status,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Outcome<ExitCode> {
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", help());
        return Ok(ExitCode::from(2));
    };
    if matches!(name.as_str(), "--help" | "-h" | "help") {
        print!("{}", help());
        return Ok(ExitCode::SUCCESS);
    }
    match TASKS.iter().find(|task| task.name == name) {
        Some(task) => (task.run)(&Workspace::find()?, rest),
        None => {
            eprintln!("xtask: there is no task `{name}`\n\n{}", help());
            Ok(ExitCode::from(2))
        }
    }
}

fn help() -> String {
    let mut text = String::from("cargo xtask TASK\n\n");
    for Task { name, arguments, about, .. } in TASKS {
        let usage = format!("{name} {arguments}");
        text.push_str(&format!("  {}\n      {about}\n", usage.trim_end()));
    }
    text
}

/// Refuses arguments where a task takes none.
fn no_arguments(task: &str, arguments: &[String]) -> Outcome<()> {
    match arguments.first() {
        None => Ok(()),
        Some(first) => Err(format!("`{task}` takes no arguments, found `{first}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_task() {
        let text = help();
        for task in TASKS {
            assert!(text.contains(&format!("\n  {}", task.name)), "{}", task.name);
        }
    }

    #[test]
    fn arguments_are_refused_where_none_are_taken() {
        assert!(no_arguments("tidy", &[]).is_ok());
        assert!(no_arguments("tidy", &["--fix".to_owned()]).is_err_and(|e| e.contains("--fix")));
    }
}
