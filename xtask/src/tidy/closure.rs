//! Rules on what arb-core is really compiled with: cargo's own resolution, without tests.

use std::path::Path;

use super::Violation;
use crate::Outcome;
use crate::process;
use crate::workspace::Workspace;

/// Every crate that arb-core brings into a program. A new one is a decision, taken here.
const CLOSURE: &[&str] = &[
    "arb-core",
    // bitcoin and what it needs
    "arrayvec",
    "base58ck",
    "bech32",
    "bitcoin",
    "bitcoin-internals",
    "bitcoin-io",
    "bitcoin-units",
    "bitcoin_hashes",
    "hex-conservative",
    "hex_lit",
    "secp256k1",
    "secp256k1-sys",
    // hashbrown and its hasher
    "foldhash",
    "hashbrown",
];

pub(super) fn check(workspace: &Workspace) -> Outcome<Vec<Violation>> {
    let mut found = crates(&tree(workspace, "normal")?);
    found.extend(features(&tree(workspace, "features,normal")?));
    Ok(found)
}

fn tree(workspace: &Workspace, edges: &str) -> Outcome<String> {
    let mut command = workspace.cargo("tree");
    command.args(["--locked", "--package", "arb-core", "--prefix", "none", "--edges", edges]);
    process::output(&mut command)
}

fn crates(tree: &str) -> Vec<Violation> {
    let mut names: Vec<&str> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !CLOSURE.contains(name));
    let rule = |name| violation(format!("arb-core is compiled with the unlisted crate `{name}`"));
    names.into_iter().map(rule).collect()
}

/// Lines of the form `NAME feature "std"`.
fn features(tree: &str) -> Vec<Violation> {
    let with_std = tree.lines().filter(|line| line.contains("feature \"std\""));
    let mut names: Vec<&str> = with_std.filter_map(|l| l.split_whitespace().next()).collect();
    names.sort_unstable();
    names.dedup();
    let rule = |name| violation(format!("arb-core compiles `{name}` with its std feature"));
    names.into_iter().map(rule).collect()
}

fn violation(rule: String) -> Violation {
    Violation::new(Path::new("arb-core/Cargo.toml"), 1, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlisted_crate_is_found_once() {
        let tree = "arb-core v0.1.0 (/w)\nbitcoin v0.32.0\nserde v1.0.0\nbitcoin v0.32.0 (*)\nserde v1.0.0 (*)\n";
        let found = crates(tree);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].rule.contains("`serde`"));
        assert_eq!(crates("arb-core v0.1.0\nhashbrown v0.16.1\nfoldhash v0.2.0\n"), []);
    }

    #[test]
    fn a_std_feature_is_found() {
        let found = features(
            "bitcoin feature \"std\"\nbitcoin feature \"std\" (*)\nhex feature \"alloc\"\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].rule.contains("`bitcoin`"));
        assert_eq!(
            features("bitcoin-io feature \"alloc\"\nhashbrown feature \"default-hasher\"\n"),
            []
        );
    }
}
