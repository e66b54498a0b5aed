//! Rules on the manifests: who may depend on whom, and that the common lints hold everywhere.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Violation;
use super::code::numbered;
use crate::Outcome;
use crate::workspace::Workspace;

/// What arb-core may depend on outside its tests.
const CORE_ALLOWED: &[&str] = &["bitcoin", "hashbrown"];

/// What arb-core may depend on if somebody asks for it by a feature: never by default, without its
/// default features, with these features alone (ADR 0007).
const CORE_OPTIONAL: &[(&str, &[&str])] = &[("serde", &["alloc"])];

/// Crates of which none may depend on another.
const LAYER: &[&str] = &["arb-watcher", "arb-store", "arb-node-adapter"];

/// Outside crates that only some packages may depend on.
const CONFINED: &[(&str, &[&str])] =
    &[("heed", &["arb-store", "arb-tests"]), ("lightning", &["arb-node-adapter", "arb-tests"])];

pub(super) fn check(workspace: &Workspace) -> Outcome<Vec<Violation>> {
    let mut found = Vec::new();
    for package in packages(&workspace.metadata(&["--no-deps"])?, &workspace.root)? {
        let manifest = workspace.read(&package.manifest)?;
        found.extend(dependencies(&package, &manifest));
        found.extend(lints(&package.manifest, &manifest));
    }
    Ok(found)
}

/// A member of the workspace, as far as the rules look at it.
#[derive(Debug)]
struct Package {
    name: String,
    /// Relative to the root.
    manifest: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    /// The name of the package, whatever the manifest calls it.
    name: String,
    kind: Kind,
    optional: bool,
    default_features: bool,
    features: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Development,
    Build,
}

fn packages(metadata: &Value, root: &Path) -> Outcome<Vec<Package>> {
    let broken = || "cargo metadata has another form than expected".to_owned();
    let packages = metadata["packages"].as_array().ok_or_else(broken)?;
    packages.iter().map(|package| read_package(package, root).ok_or_else(broken)).collect()
}

fn read_package(package: &Value, root: &Path) -> Option<Package> {
    let manifest = Path::new(package["manifest_path"].as_str()?);
    let dependencies = package["dependencies"].as_array()?.iter().map(read_dependency);
    Some(Package {
        name: package["name"].as_str()?.to_owned(),
        manifest: manifest.strip_prefix(root).unwrap_or(manifest).to_owned(),
        dependencies: dependencies.collect::<Option<_>>()?,
    })
}

fn read_dependency(dependency: &Value) -> Option<Dependency> {
    let kind = match dependency["kind"].as_str() {
        None => Kind::Normal,
        Some("dev") => Kind::Development,
        Some("build") => Kind::Build,
        Some(_) => return None,
    };
    let features = dependency["features"].as_array()?.iter();
    Some(Dependency {
        name: dependency["name"].as_str()?.to_owned(),
        kind,
        optional: dependency["optional"].as_bool()?,
        default_features: dependency["uses_default_features"].as_bool()?,
        features: features.map(|name| Some(name.as_str()?.to_owned())).collect::<Option<_>>()?,
    })
}

fn dependencies(package: &Package, manifest: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for dependency in &package.dependencies {
        if let Some(rule) = broken_rule(&package.name, dependency) {
            found.push(Violation::new(
                &package.manifest,
                line_of(manifest, &dependency.name),
                rule,
            ));
        }
    }
    found
}

/// The rule that this dependency breaks, if any.
fn broken_rule(package: &str, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    let shipped = dependency.kind != Kind::Development;
    if package == "arb-core" && shipped && !CORE_ALLOWED.contains(&name) && !is_optional(dependency)
    {
        return Some(format!(
            "arb-core depends on `{name}`, not on {}",
            CORE_ALLOWED.join(" and ")
        ));
    }
    if package == "arb-core" && (name.starts_with("arb-") || name == "tokio") {
        return Some(format!("arb-core depends on `{name}`, even if only in tests"));
    }
    if LAYER.contains(&package) && LAYER.contains(&name) {
        return Some(format!("`{package}` depends on `{name}` of the same layer"));
    }
    if package != "arb-tests" && name == "arb-tests" {
        return Some("nothing may depend on `arb-tests`".to_owned());
    }
    if package == "xtask" && name.starts_with("arb-") {
        return Some(format!("xtask depends on the workspace's `{name}`"));
    }
    if package == "arb-store" && name == "tokio" && shipped {
        return Some("arb-store depends on `tokio`".to_owned());
    }
    let (_, homes) = CONFINED.iter().find(|(confined, _)| *confined == name)?;
    (!homes.contains(&package)).then(|| {
        format!("`{package}` depends on `{name}`, which belongs to {}", homes.join(" and "))
    })
}

/// Whether arb-core may have this dependency behind a feature.
fn is_optional(dependency: &Dependency) -> bool {
    let allowed = CORE_OPTIONAL.iter().find(|(name, _)| *name == dependency.name);
    dependency.kind == Kind::Normal
        && dependency.optional
        && !dependency.default_features
        && allowed.is_some_and(|(_, features)| dependency.features == *features)
}

/// The line of the manifest that begins with the name of the dependency; the first line otherwise.
fn line_of(manifest: &str, name: &str) -> usize {
    let begins = |line: &str| {
        let rest = line.trim_start().strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '=', '.']))
    };
    numbered(manifest).find(|(_, line)| begins(line)).map_or(1, |(number, _)| number)
}

/// `[lints]` with `workspace = true`.
fn lints(path: &Path, manifest: &str) -> Option<Violation> {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    let inherited = lines
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.replace(' ', "") == "workspace=true");
    (!inherited).then(|| Violation::new(path, 1, "no `[lints] workspace = true`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn on(name: &str, kind: Kind) -> Dependency {
        let (optional, default_features, features) = (false, false, Vec::new());
        Dependency { name: name.to_owned(), kind, optional, default_features, features }
    }

    fn refused(package: &str, name: &str, kind: Kind) {
        assert!(broken_rule(package, &on(name, kind)).is_some(), "{package} on {name}");
    }

    fn allowed(package: &str, name: &str, kind: Kind) {
        assert_eq!(broken_rule(package, &on(name, kind)), None, "{package} on {name}");
    }

    #[test]
    fn arb_core_ships_with_its_allowlist_alone() {
        refused("arb-core", "serde", Kind::Normal);
        refused("arb-core", "cc", Kind::Build);
        refused("arb-core", "arb-store", Kind::Development);
        refused("arb-core", "tokio", Kind::Development);
        allowed("arb-core", "bitcoin", Kind::Normal);
        allowed("arb-core", "hashbrown", Kind::Normal);
        allowed("arb-core", "proptest", Kind::Development);
    }

    #[test]
    fn arb_core_may_have_serde_if_asked_for_and_bare() {
        let serde = || Dependency {
            optional: true,
            features: vec!["alloc".to_owned()],
            ..on("serde", Kind::Normal)
        };
        let refused = |dependency| broken_rule("arb-core", &dependency).is_some();
        assert!(!refused(serde()));
        assert!(refused(Dependency { optional: false, ..serde() }));
        assert!(refused(Dependency { default_features: true, ..serde() }));
        assert!(refused(Dependency { features: Vec::new(), ..serde() }));
        assert!(refused(Dependency { kind: Kind::Build, ..serde() }));
        assert!(refused(Dependency { name: "serde_derive".to_owned(), ..serde() }));
        let more = vec!["alloc".to_owned(), "std".to_owned()];
        assert!(refused(Dependency { features: more, ..serde() }));
    }

    #[test]
    fn crates_of_one_layer_do_not_know_each_other() {
        refused("arb-watcher", "arb-store", Kind::Normal);
        refused("arb-store", "arb-node-adapter", Kind::Development);
        allowed("arb-watcher", "arb-core", Kind::Normal);
        allowed("arb-tests", "arb-store", Kind::Normal);
        refused("arb-watcher", "arb-tests", Kind::Development);
        refused("xtask", "arb-core", Kind::Normal);
        allowed("xtask", "serde_json", Kind::Normal);
    }

    #[test]
    fn outside_crates_stay_at_home() {
        refused("arb-watcher", "heed", Kind::Normal);
        refused("arb-node-adapter", "heed", Kind::Development);
        allowed("arb-tests", "heed", Kind::Normal);
        allowed("arb-store", "heed", Kind::Normal);
        refused("arb-store", "lightning", Kind::Normal);
        allowed("arb-node-adapter", "lightning", Kind::Normal);
        allowed("arb-tests", "lightning", Kind::Normal);
        refused("arb-store", "tokio", Kind::Normal);
        allowed("arb-store", "tokio", Kind::Development);
        allowed("arb-watcher", "tokio", Kind::Normal);
    }

    #[test]
    fn a_violation_points_at_the_dependency() {
        let metadata = json!({ "packages": [{
            "name": "arb-core",
            "manifest_path": "/w/arb-core/Cargo.toml",
            "dependencies": [
                { "name": "bitcoin", "kind": null, "optional": false,
                  "uses_default_features": true, "features": [] },
                { "name": "serde", "kind": null, "optional": false,
                  "uses_default_features": true, "features": [] },
                { "name": "proptest", "kind": "dev", "optional": false,
                  "uses_default_features": true, "features": [] },
            ],
        }] });
        let manifest = "[package]\nname = \"arb-core\"\n[dependencies]\nbitcoin = \"1\"\nserde.workspace = true\n";
        let packages = packages(&metadata, Path::new("/w")).unwrap();
        let found = dependencies(&packages[0], manifest);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].to_string().starts_with("arb-core/Cargo.toml:5: arb-core depends on `serde`")
        );
    }

    #[test]
    fn metadata_of_another_form_is_an_error() {
        assert!(packages(&json!({ "packages": [{ "name": "x" }] }), Path::new("/")).is_err());
        assert!(packages(&json!([]), Path::new("/")).is_err());
    }

    #[test]
    fn lints_must_be_inherited() {
        let path = Path::new("a/Cargo.toml");
        assert_eq!(lints(path, "[package]\n[lints]\nworkspace = true\n"), None);
        assert!(lints(path, "[package]\n").is_some());
        assert!(lints(path, "[lints]\n[dependencies.x]\nworkspace = true\n").is_some());
        assert!(lints(path, "[lints.rust]\nunsafe_code = \"deny\"\n").is_some());
    }
}
