//! Every scenario of the project parses, is supported, and says what it is for.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::unsupported;
use super::*;

#[test]
fn every_file_of_the_folder_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(&folder).expect("the folder of scenarios");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut seen = BTreeSet::new();
    for path in &paths {
        assert_eq!(path.extension().and_then(|end| end.to_str()), Some("scn"), "{path:?}");
        let text = std::fs::read_to_string(path).expect("a readable file");
        let scenario = parse(&path.display().to_string(), &text);
        let scenario = scenario.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(unsupported(&scenario), None);
        assert!(!scenario.bolt.is_empty() || !scenario.incidents.is_empty(), "{path:?}: no ids");
        let expects = scenario.story.iter().any(|s| matches!(s.step, Step::Expect(_)));
        assert!(expects, "{path:?} expects nothing");
        seen.extend(scenario.channels.iter().map(|channel| format!("{:?}", channel.format)));
    }
    assert!(paths.len() >= 45, "{} scenarios", paths.len());
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["Anchors", "StaticRemotekey", "ZeroFee"]);
}

#[test]
fn the_example_of_the_page_parses() {
    let page = include_str!("../../../../docs/scenarios.md");
    let example = page.split("```\n").find(|block| block.starts_with("bolt "));
    let scenario = accept(example.expect("an example"));
    assert_eq!(scenario.bolt, ["LL2", "LL3a"]);
    assert_eq!(unsupported(&scenario), None);
}
