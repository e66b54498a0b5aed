//! `bolt`: which requirements of BOLT 5, and which incidents of the past, nothing exercises yet.
//!
//! The lists are the tables of `docs/requirements.md` and `docs/incidents.md`. A scenario names what
//! it exercises by its `bolt` and `incident` lines, a test by a comment with the same words.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use crate::workspace::Workspace;
use crate::{Outcome, no_arguments};

const SCENARIOS: &str = "tests/scenarios";

/// One table of things to exercise, and the word that names them.
struct List {
    file: &'static str,
    word: &'static str,
}

const LISTS: &[List] = &[
    List { file: "docs/requirements.md", word: "bolt" },
    List { file: "docs/incidents.md", word: "incident" },
];

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Outcome<ExitCode> {
    no_arguments("bolt", arguments)?;
    let scenarios = workspace.files(SCENARIOS, "scn")?;
    let mut tests = workspace.files("", "rs")?;
    // This package's own tests speak of ids, but exercise none.
    tests.retain(|path| !path.starts_with("xtask"));
    let mut all_known = true;
    for list in LISTS {
        let entries = entries(&workspace.read(Path::new(list.file))?);
        let ids: BTreeSet<&str> =
            entries.iter().flat_map(|e| e.ids.iter().map(String::as_str)).collect();
        let mut named = BTreeSet::new();
        for path in &scenarios {
            for (line, id) in named_by_scenario(&workspace.read(path)?, list.word) {
                if !ids.contains(id.as_str()) {
                    println!("{}:{line}: {} does not list `{id}`", path.display(), list.file);
                    all_known = false;
                }
                named.insert(id);
            }
        }
        for path in &tests {
            let text = workspace.read(path)?;
            named.extend(named_by_test(test_part(path, &text), list.word));
        }
        report(list, &entries, &named);
    }
    Ok(if all_known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(list: &List, entries: &[Entry], named: &BTreeSet<String>) {
    let missing: Vec<&Entry> =
        entries.iter().filter(|e| !e.ids.iter().any(|id| named.contains(id))).collect();
    println!("{}: {} of {} exercised", list.file, entries.len() - missing.len(), entries.len());
    for entry in missing {
        println!("  {:<24} {}", entry.ids.join(" "), entry.about);
    }
}

/// A row of a table: one or more ids that one scenario may exercise, and what they say.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    ids: Vec<String>,
    about: String,
}

/// The rows of a Markdown table whose first cell holds ids, its last cell what they say.
///
/// Rows marked `node` in a cell between are the node's duty, out of the arbiter's reach.
fn entries(markdown: &str) -> Vec<Entry> {
    markdown.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let cells: Vec<&str> =
        line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let (first, rest) = cells.split_first()?;
    let (about, between) = rest.split_last()?;
    let ids: Vec<String> = first.split_whitespace().map(str::to_owned).collect();
    if !ids.iter().all(|id| is_id(id)) || ids.is_empty() || between.contains(&"node") {
        return None;
    }
    Some(Entry { ids, about: (*about).to_owned() })
}

/// Ids hold a digit, which tells them from the head of a table.
fn is_id(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The ids that a scenario's lines of that word name, with their lines.
fn named_by_scenario(text: &str, word: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let statement = line.split('#').next().unwrap_or_default();
        let mut words = statement.split_whitespace();
        if words.next() == Some(word) {
            named.extend(words.map(|id| (index + 1, id.to_owned())));
        }
    }
    named
}

/// The ids that a comment names after that word: `// bolt LL2 LL3a`.
fn named_by_test(text: &str, word: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for line in text.lines() {
        let Some((_, comment)) = line.split_once("//") else { continue };
        let words = comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let after = words.skip_while(|found| !found.eq_ignore_ascii_case(word)).skip(1);
        named.extend(after.filter(|id| is_id(id)).map(str::to_owned));
    }
    named
}

/// What of a source file is test: all of it below a folder of tests, else what follows `cfg(test)`.
fn test_part<'a>(path: &Path, text: &'a str) -> &'a str {
    let within = |name: &str| path.iter().skip(1).any(|part| part == name);
    if within("tests") || within("tests.rs") {
        return text;
    }
    text.find("#[cfg(test)]").map_or("", |start| &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_ids_are_read_and_heads_are_not() {
        let markdown = "# t\n| id | who | says |\n|---|---|---|\n| G1 | arbiter | watch |\n\
                        | B2 | node | fail it |\n| lnd-1 ldk-2 | | both |\ntext | with | bars\n";
        let found = entries(markdown);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], Entry { ids: vec!["G1".to_owned()], about: "watch".to_owned() });
        assert_eq!(found[1].ids, ["lnd-1", "ldk-2"]);
    }

    #[test]
    fn a_scenario_names_ids_by_its_statements() {
        let text = "# bolt X1\nbolt LL2 LL3a # and V3\nchannel a\nincident lnd-9422\n";
        assert_eq!(
            named_by_scenario(text, "bolt"),
            [(2, "LL2".to_owned()), (2, "LL3a".to_owned())]
        );
        assert_eq!(named_by_scenario(text, "incident"), [(4, "lnd-9422".to_owned())]);
    }

    #[test]
    fn a_test_names_ids_by_its_comments() {
        let text =
            "/// bolt LL2, LL3a: fails upstream.\nlet V3 = bolt; // F5\nlet x = 1; // BOLT V4\n";
        let found: Vec<String> = named_by_test(text, "bolt").into_iter().collect();
        assert_eq!(found, ["LL2", "LL3a", "V4"]);
    }

    #[test]
    fn only_tests_count() {
        let text = "// bolt G1\n#[cfg(test)]\n// bolt G2\n";
        assert_eq!(test_part(Path::new("arb-core/src/a.rs"), text), "#[cfg(test)]\n// bolt G2\n");
        assert_eq!(test_part(Path::new("arb-core/src/a/tests.rs"), text), text);
        assert_eq!(test_part(Path::new("tests/tests/it/a.rs"), text), text);
        assert_eq!(test_part(Path::new("tests/src/chain.rs"), "// bolt G1\n"), "");
    }

    #[test]
    fn the_scenarios_of_the_workspace_name_ids_that_the_tables_hold() {
        let result = run(&Workspace::find().unwrap(), &[]).unwrap();
        assert_eq!(result, ExitCode::SUCCESS, "see the lines above");
    }

    #[test]
    fn the_tables_of_the_workspace_hold_each_id_once() {
        let workspace = Workspace::find().unwrap();
        for list in LISTS {
            let entries = entries(&workspace.read(Path::new(list.file)).unwrap());
            assert!(entries.len() > 50, "{}: {} rows", list.file, entries.len());
            let mut seen = BTreeSet::new();
            for id in entries.iter().flat_map(|entry| &entry.ids) {
                assert!(seen.insert(id), "{}: {id} stands twice", list.file);
            }
        }
    }
}
