//! Every scenario of the project, on the embedded chain.
use arb_tests::cli::scenario::read;
use arb_tests::runner::{Options, Verdict, run};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

#[test]
fn every_scenario_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(&folder).expect("the folder of scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 45, "{} scenarios", paths.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::SeqCst)) {
            let failure = match read(path) {
                Err(error) => Some(error.to_string()),
                Ok(scenario) => match run(&scenario, Options::default()).verdict {
                    Verdict::Passed => None,
                    Verdict::Failed { line, failed, .. } => Some(format!(
                        "{}:{line}: expected {}, found {}",
                        path.display(),
                        failed.expected,
                        failed.found
                    )),
                },
            };
            failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failure);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
