//! What the build of bitcoind needs from the machine, and how to get it.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, process};

/// Something that the build needs: how to see that it is there, and Debian's package for it.
struct Tool {
    what: &'static str,
    package: &'static str,
    is_there: fn() -> bool,
}

const TOOLS: &[Tool] = &[
    Tool { what: "cmake", package: "cmake", is_there: || answers("cmake") },
    Tool { what: "ninja", package: "ninja-build", is_there: || answers("ninja") },
    Tool { what: "a C++ compiler", package: "g++", is_there: || answers("c++") },
    Tool { what: "Boost's headers", package: "libboost-dev", is_there: has_boost },
];

/// Installs what is missing where that is possible, else says what to install.
pub(super) fn ensure() -> Outcome<()> {
    if missing().is_empty() {
        return Ok(());
    }
    if is_root() && Path::new("/usr/bin/apt-get").exists() {
        install(&missing())?;
    }
    explain(&missing())
}

fn missing() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !(tool.is_there)()).collect()
}

fn explain(missing: &[&Tool]) -> Outcome<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let list = |of: fn(&Tool) -> &'static str, with: &str| {
        missing.iter().map(|tool| of(tool)).collect::<Vec<_>>().join(with)
    };
    Err(format!(
        "to build bitcoind, this machine lacks {}; on Debian: apt-get install {}. \
         Or name a bitcoind in {}.",
        list(|tool| tool.what, ", "),
        list(|tool| tool.package, " "),
        super::VARIABLE
    ))
}

fn install(missing: &[&Tool]) -> Outcome<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr());
        command
    };
    process::check(apt().args(["-qq", "update"]))?;
    let mut install = apt();
    install.args(["-qq", "-y", "--no-install-recommends", "install"]);
    process::check(install.args(missing.iter().map(|tool| tool.package)))
}

fn answers(program: &str) -> bool {
    process::succeeds(Command::new(program).arg("--version"))
}

fn has_boost() -> bool {
    let mut compiler = Command::new("c++");
    process::succeeds(compiler.args([
        "-E",
        "-x",
        "c++",
        "-include",
        "boost/version.hpp",
        "/dev/null",
    ]))
}

fn is_root() -> bool {
    process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_says_what_to_install() {
        let lacking = [&TOOLS[1], &TOOLS[3]];
        let error = explain(&lacking).unwrap_err();
        assert!(error.contains("apt-get install ninja-build libboost-dev"), "{error}");
        assert!(explain(&[]).is_ok());
    }

    #[test]
    fn a_program_that_is_not_there_does_not_answer() {
        assert!(!answers("no-such-program"));
    }
}
