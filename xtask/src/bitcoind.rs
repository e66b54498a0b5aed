//! `bitcoind`: finds a Bitcoin Core daemon, or builds it from the source that a crate carries.
//!
//! First `BITCOIND_EXE`; then a finished build in the user's cache; else the source that
//! `libbitcoinkernel-sys` ships beside its manifest is built there, once. A build counts as finished
//! when a stamp was written after it, so that an interrupted one is taken up again, not trusted.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

use crate::workspace::Workspace;
use crate::{Outcome, no_arguments, process};

mod lock;
#[cfg(test)]
mod reasons;
mod tools;

/// Names a bitcoind to use instead of building one; the runner of scenarios reads it too.
pub(crate) const VARIABLE: &str = "BITCOIND_EXE";

const SOURCE_CRATE: &str = "libbitcoinkernel-sys";

/// A daemon on regtest without a wallet is all that is needed.
const CONFIGURATION: &[&str] = &[
    "-DENABLE_WALLET=OFF",
    "-DBUILD_TESTS=OFF",
    "-DBUILD_BENCH=OFF",
    "-DENABLE_IPC=OFF",
    "-DWITH_ZMQ=OFF",
    "-DBUILD_UTIL=OFF",
    "-DBUILD_TX=OFF",
    "-DWITH_EMBEDDED_ASMAP=OFF",
    "-DBUILD_DAEMON=ON",
    "-DBUILD_CLI=ON",
    "-DCMAKE_BUILD_TYPE=Release",
];

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    no_arguments("bitcoind", arguments)?;
    println!("{}", find(workspace)?.display());
    Ok(ExitCode::SUCCESS)
}

/// The path of a bitcoind that starts.
pub(crate) fn find(workspace: &Workspace) -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match starts(&path) {
            true => Ok(path),
            false => Err(format!("{VARIABLE}: `{} -version` does not succeed", path.display())),
        };
    }
    let source = source(&workspace.metadata(&[])?)?;
    let folder = cache_folder()?.join(format!("bitcoind-{SOURCE_CRATE}-{}", source.version));
    let cache = Cache { folder };
    if !cache.is_finished() {
        fs::create_dir_all(&cache.folder)
            .map_err(|e| format!("{}: {e}", cache.folder.display()))?;
        let held = lock::acquire(&cache.folder)?;
        // Another run may have finished it while this one waited.
        if !cache.is_finished() {
            cache.build(&source, &held)?;
        }
    }
    Ok(cache.program())
}

/// Whether the program at that path runs at all; a half-linked one does not.
fn starts(program: &Path) -> bool {
    process::succeeds(Command::new(program).arg("-version"))
}

fn cache_folder() -> Outcome<PathBuf> {
    let given = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("arbiter")).ok_or_else(|| "neither XDG_CACHE_HOME nor HOME".into())
}

/// The source of Bitcoin Core, and the version of the crate that carries it.
#[derive(Debug)]
struct Source {
    folder: PathBuf,
    version: String,
}

/// Looks the crate up in what cargo resolved for all platforms.
fn source(metadata: &Value) -> Outcome<Source> {
    let missing = || format!("cargo metadata does not name the crate {SOURCE_CRATE}");
    let packages = metadata["packages"].as_array().ok_or_else(missing)?;
    let package = packages.iter().find(|p| p["name"] == SOURCE_CRATE).ok_or_else(missing)?;
    let manifest = package["manifest_path"].as_str().map(Path::new).ok_or_else(missing)?;
    let version = package["version"].as_str().ok_or_else(missing)?.to_owned();
    let folder = manifest.with_file_name("bitcoin");
    match folder.join("CMakeLists.txt").is_file() {
        true => Ok(Source { folder, version }),
        false => Err(format!("{} holds no source of Bitcoin Core", folder.display())),
    }
}

/// The folder of one version's build.
struct Cache {
    folder: PathBuf,
}

impl Cache {
    fn build_folder(&self) -> PathBuf {
        self.folder.join("build")
    }

    fn program(&self) -> PathBuf {
        self.build_folder().join("bin/bitcoind")
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("finished")
    }

    fn is_finished(&self) -> bool {
        self.stamp().is_file() && starts(&self.program())
    }

    /// Configures and builds, or completes what an interrupted run has left, then sets the stamp.
    fn build(&self, source: &Source, lock: &lock::Held) -> Outcome<()> {
        tools::ensure()?;
        self.discard_foreign_build(source)?;
        let mut configure = Command::new("cmake");
        configure.args(["-G", "Ninja", "-S"]).arg(&source.folder);
        configure.arg("-B").arg(self.build_folder()).args(CONFIGURATION);
        let mut build = Command::new("ninja");
        build.arg("-C").arg(self.build_folder()).args(["bitcoind", "bitcoin-cli"]);

        let log = self.folder.join("build.log");
        eprintln!("building bitcoind in {}", self.build_folder().display());
        let output = Output::new(&log)?;
        output.run(configure.stdin(lock.share()?))?;
        output.run(build.stdin(lock.share()?))?;
        if !starts(&self.program()) {
            return Err(format!("{} was built but does not start", self.program().display()));
        }
        let new = self.folder.join("finished.new");
        fs::write(&new, format!("{}\n", source.folder.display()))
            .and_then(|()| fs::rename(&new, self.stamp()))
            .map_err(|e| format!("{}: {e}", self.stamp().display()))
    }

    /// CMake refuses a build folder that was configured for a source elsewhere.
    fn discard_foreign_build(&self, source: &Source) -> Outcome<()> {
        let Ok(settings) = fs::read_to_string(self.build_folder().join("CMakeCache.txt")) else {
            return Ok(());
        };
        match configured_source(&settings) {
            Some(folder) if folder == source.folder => Ok(()),
            _ => fs::remove_dir_all(self.build_folder())
                .map_err(|e| format!("{}: {e}", self.build_folder().display())),
        }
    }
}

/// The source folder that a `CMakeCache.txt` belongs to.
fn configured_source(settings: &str) -> Option<PathBuf> {
    let line = settings.lines().find_map(|l| l.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    line.map(PathBuf::from)
}

/// Where the build's words go: to a terminal if there is one, else to a file.
///
/// Never to the standard output, which carries the path alone.
enum Output {
    Terminal,
    File { path: PathBuf, file: File },
}

impl Output {
    fn new(log: &Path) -> Outcome<Self> {
        if std::io::stderr().is_terminal() {
            return Ok(Self::Terminal);
        }
        let file = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        eprintln!("  log: {}", log.display());
        Ok(Self::File { path: log.to_owned(), file })
    }

    fn run(&self, command: &mut Command) -> Outcome<()> {
        match self {
            Self::Terminal => process::check(command.stdout(std::io::stderr())),
            Self::File { path, file } => {
                let twin = || file.try_clone().map_err(|e| format!("{}: {e}", path.display()));
                command.stdout(twin()?).stderr(twin()?);
                process::check(command).map_err(|e| format!("{e}\n{}", tail(path)))
            }
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_source_lies_beside_the_manifest() {
        let workspace = Workspace::find().unwrap();
        let source = source(&workspace.metadata(&[]).unwrap()).unwrap();
        assert!(source.folder.join("src/bitcoind.cpp").is_file());
        assert_eq!(source.version, "0.4.1");
    }

    #[test]
    fn a_crate_without_the_source_is_an_error() {
        let absent = json!({ "packages": [{ "name": "serde" }] });
        assert!(source(&absent).unwrap_err().contains(SOURCE_CRATE));
        let bare = json!({ "packages": [
            { "name": SOURCE_CRATE, "version": "1", "manifest_path": "/nowhere/Cargo.toml" }
        ] });
        assert!(source(&bare).unwrap_err().contains("/nowhere/bitcoin"));
    }

    #[test]
    fn a_build_without_its_stamp_is_not_finished() {
        let folder = std::env::temp_dir().join(format!("arb-cache-{}", std::process::id()));
        let cache = Cache { folder: folder.clone() };
        fs::create_dir_all(cache.build_folder().join("bin")).unwrap();
        std::os::unix::fs::symlink("/bin/true", cache.program()).unwrap();
        assert!(!cache.is_finished());
        fs::write(cache.stamp(), "").unwrap();
        assert!(cache.is_finished());
        fs::remove_file(cache.program()).unwrap();
        fs::write(cache.program(), "half a program").unwrap();
        assert!(!cache.is_finished());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_build_folder_tells_its_source() {
        let settings = "A:STRING=b\nCMAKE_HOME_DIRECTORY:INTERNAL=/x/bitcoin\n";
        assert_eq!(configured_source(settings), Some(PathBuf::from("/x/bitcoin")));
        assert_eq!(configured_source("A:STRING=b\n"), None);
    }

    #[test]
    fn the_tail_of_a_log_is_its_end() {
        let log = std::env::temp_dir().join(format!("arb-log-{}", std::process::id()));
        fs::write(&log, (0..100).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
        let tail = tail(&log);
        assert!(tail.starts_with("60\n") && tail.ends_with("\n99"), "{tail}");
        fs::remove_file(log).unwrap();
    }
}
