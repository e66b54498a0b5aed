//! A proof by linking that nothing below arb-core brings the standard library with it.
//!
//! A library that is linked whole, with a panic handler and an allocator of its own: had any crate
//! linked std, there would be two panic handlers (E0152). `cargo build -p arb-core` would not tell.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::Violation;
use crate::workspace::{self, Workspace};
use crate::{Outcome, process};

const SOURCE: &str = r#"//! Links arb-core without the standard library.
#![no_std]
extern crate arb_core;

use core::alloc::{GlobalAlloc, Layout};

struct Nothing;

unsafe impl GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Nothing = Nothing;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
"#;

pub(super) fn check(workspace: &Workspace) -> Outcome<Option<Violation>> {
    let metadata = workspace.metadata(&["--no-deps"])?;
    let target = metadata["target_directory"].as_str().map(Path::new);
    let target = target.ok_or("cargo metadata names no target directory")?;
    let lock = workspace.read(Path::new("Cargo.lock"))?;
    links(&workspace.root.join("arb-core"), &lock, &target.join("no-std-proof"))
}

/// Links the crate named arb-core at `core` into a library without std, in `folder`.
///
/// `lock` is the lock file to start from, so that the same versions are used and none is fetched.
fn links(core: &Path, lock: &str, folder: &Path) -> Outcome<Option<Violation>> {
    let manifest = manifest(core)?;
    write(&folder.join("Cargo.toml"), &manifest)?;
    write(&folder.join("Cargo.lock"), lock)?;
    write(&folder.join("src/lib.rs"), SOURCE)?;
    let mut command = workspace::cargo("build", &folder.join("Cargo.toml"));
    command.args(["--offline", "--quiet", "--target-dir"]).arg(folder.join("target"));
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("cargo build: {e}"))?;
    if output.status.success() {
        return Ok(None);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    if !is_about_std(&words) {
        return Err(format!("`{}` failed:\n{words}", process::name(&command)));
    }
    let rule = "arb-core does not link without the standard library";
    Ok(Some(Violation::new(Path::new("arb-core/src/lib.rs"), 1, rule)))
}

/// A workspace of its own, so that its features are resolved for arb-core alone.
fn manifest(core: &Path) -> Outcome<String> {
    let path = core.to_str().ok_or_else(|| format!("{} is not UTF-8", core.display()))?;
    Ok(format!(
        "[workspace]\n\n[package]\nname = \"no-std-proof\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n\
         [lib]\ncrate-type = [\"staticlib\"]\n\n[profile.dev]\npanic = \"abort\"\n\n\
         [dependencies]\narb-core = {{ path = {path:?} }}\n"
    ))
}

/// Writes only what changed, so that cargo does not build again for nothing.
fn write(path: &Path, text: &str) -> Outcome<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether rustc complains of a second panic handler.
fn is_about_std(words: &str) -> bool {
    words.contains("E0152")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves or refutes a crate named arb-core of which this is the source.
    fn judge(name: &str, source: &str) -> Outcome<Option<Violation>> {
        let folder = std::env::temp_dir().join(format!("arb-no-std-{name}-{}", std::process::id()));
        let core = folder.join("core");
        let manifest = "[package]\nname = \"arb-core\"\nversion = \"0.0.0\"\nedition = \"2021\"\n";
        write(&core.join("Cargo.toml"), manifest)?;
        write(&core.join("src/lib.rs"), source)?;
        let verdict = links(&core, "version = 4\n", &folder.join("proof"));
        fs::remove_dir_all(&folder).map_err(|e| e.to_string())?;
        verdict
    }

    #[test]
    fn a_crate_without_std_links() {
        let source = "#![no_std]\nextern crate alloc;\npub fn f() -> alloc::vec::Vec<u8> { alloc::vec![1] }\n";
        assert_eq!(judge("clean", source), Ok(None));
    }

    #[test]
    fn a_crate_that_links_std_is_found() {
        let hidden = "#![no_std]\nextern crate std;\npub fn f() -> std::string::String { std::string::String::new() }\n";
        let verdict = judge("std", hidden).unwrap().expect("std was not noticed");
        assert!(verdict.rule.contains("standard library"));
    }

    #[test]
    fn a_crate_that_does_not_compile_is_no_verdict() {
        assert!(
            judge("broken", "#![no_std]\npub fn f() -> u8 {}\n")
                .is_err_and(|e| e.contains("E0308"))
        );
    }
}
