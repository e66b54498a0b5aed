//! Where the workspace is, and what cargo says of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Outcome;
use crate::process;

/// The root folder of the workspace.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
}

impl Workspace {
    /// The workspace of this package: cargo names the manifest's folder when it runs the task.
    pub(crate) fn find() -> Outcome<Self> {
        let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
        let root = Path::new(&manifest_dir).parent().map(Path::to_path_buf);
        match root {
            Some(root) if root.join("Cargo.lock").is_file() => Ok(Self { root }),
            _ => Err(format!("{} is in no workspace", manifest_dir.to_string_lossy())),
        }
    }

    /// A call of cargo on this workspace.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        cargo(subcommand, &self.root.join("Cargo.toml"))
    }

    /// What `cargo metadata` says, without changing the lock file.
    pub(crate) fn metadata(&self, further: &[&str]) -> Outcome<Value> {
        let mut command = self.cargo("metadata");
        command.args(["--format-version", "1", "--locked"]).args(further);
        let text = process::output(&mut command)?;
        serde_json::from_str(&text).map_err(|e| format!("cargo metadata gave no JSON: {e}"))
    }

    /// Every file below `folder` with that extension, relative to the root, in order of name.
    ///
    /// Build output and hidden folders are left out.
    pub(crate) fn files(&self, folder: &str, extension: &str) -> Outcome<Vec<PathBuf>> {
        let mut found = Vec::new();
        let top = self.root.join(folder);
        if top.is_dir() {
            walk(&top, extension, &mut found)?;
        }
        found.sort();
        let relative = |path: PathBuf| match path.strip_prefix(&self.root) {
            Ok(inside) => inside.to_path_buf(),
            Err(_) => path,
        };
        Ok(found.into_iter().map(relative).collect())
    }

    /// The text of a file that is named relative to the root.
    pub(crate) fn read(&self, path: &Path) -> Outcome<String> {
        fs::read_to_string(self.root.join(path)).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// A call of the cargo that runs this task, on the package or workspace of that manifest.
pub(crate) fn cargo(subcommand: &str, manifest: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.arg(subcommand).arg("--manifest-path").arg(manifest);
    command
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) -> Outcome<()> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
        let kind = entry.file_type().map_err(|e| format!("{}: {e}", entry.path().display()))?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') || name == "target" {
            continue;
        }
        let path = entry.path();
        if kind.is_dir() {
            walk(&path, extension, found)?;
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_below_a_folder_and_named_from_the_root() {
        let workspace = Workspace::find().unwrap();
        let files = workspace.files("xtask", "rs").unwrap();
        assert!(files.contains(&PathBuf::from("xtask/src/workspace.rs")), "{files:?}");
        assert!(files.iter().all(|f| f.starts_with("xtask")));
        assert!(workspace.files("no-such-folder", "rs").unwrap().is_empty());
    }
}
