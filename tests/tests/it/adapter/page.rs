//! The README's page for an LDK node: [`node`] runs it. A copy of it is compiled, so that the whole crate need not be whenever the README
//! changes.
mod node;

include!("page/afternoon.inc");

/// After a change of the page, copy it to `page/afternoon.inc`.
#[test]
fn what_is_run_is_what_the_readme_says() {
    let readme = include_str!("../../../../README.md");
    let page = readme
        .split_once("<!-- afternoon: begin")
        .and_then(|(_, rest)| rest.split_once("```rust\n"))
        .and_then(|(_, rest)| rest.split_once("```\n<!-- afternoon: end"));
    assert!(page.is_some_and(|(page, _)| page == include_str!("page/afternoon.inc")));
}
