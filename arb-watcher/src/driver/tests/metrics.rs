//! Metrics and spans: what `docs/metrics.md` names is what the driver emits, and nothing else.
use super::support::*;
use crate::{Arbiter, ChainEventSubscription, Delivery, Settings};
use arb_core::arbitrator::PreimageSource;
use arb_core::format::CommitmentFormat::{Anchors, StaticRemotekey};
use arb_core::policy::{Joining, Policy};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata as Meta, Subscriber};

/// Everything that was emitted: values by name and labels, and kinds by described name.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    values: BTreeMap<String, f64>,
    kinds: BTreeMap<String, &'static str>,
    described: BTreeMap<String, &'static str>,
}

struct Value {
    seen: Seen,
    key: String,
}

impl Seen {
    fn key(&self, key: &Key, kind: &'static str) -> Arc<Value> {
        self.0.lock().expect("no panic").kinds.insert(key.name().to_owned(), kind);
        let mut name = key.name().to_owned();
        for label in key.labels() {
            write!(name, " {}={}", label.key(), label.value()).expect("text");
        }
        Arc::new(Value { seen: self.clone(), key: name })
    }

    pub(super) fn value(&self, key: &str) -> Option<f64> {
        self.0.lock().expect("no panic").values.get(key).copied()
    }

    fn described(&self, name: &KeyName, kind: &'static str) {
        self.0.lock().expect("no panic").described.insert(name.as_str().to_owned(), kind);
    }
}

impl Value {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut inner = self.seen.0.lock().expect("no panic");
        let value = inner.values.entry(self.key.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for Value {
    fn increment(&self, value: u64) {
        self.change(|before| before + value as f64);
    }
    fn absolute(&self, value: u64) {
        self.change(|_| value as f64);
    }
}

impl GaugeFn for Value {
    fn increment(&self, value: f64) {
        self.change(|before| before + value);
    }
    fn decrement(&self, value: f64) {
        self.change(|before| before - value);
    }
    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

impl HistogramFn for Value {
    fn record(&self, value: f64) {
        self.change(|_| value);
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described(&name, "counter");
    }
    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described(&name, "gauge");
    }
    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.described(&name, "histogram");
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.key(key, "counter"))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.key(key, "gauge"))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.key(key, "histogram"))
    }
}

/// Spans by name with the fields that had a value, and everything that was said.
#[derive(Clone, Default)]
struct Traced(Arc<Mutex<(Spans, String)>>);

/// Spans by name, and the fields of each.
type Spans = BTreeMap<String, BTreeSet<String>>;

struct Fields<'a>(&'a mut BTreeSet<String>, &'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned());
        writeln!(self.1, "{}={value:?}", field.name()).expect("text");
    }
}

impl Subscriber for Traced {
    fn enabled(&self, of: &Meta<'_>) -> bool {
        of.target().starts_with("arb_watcher")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut inner = self.0.lock().expect("no panic");
        let (spans, said) = &mut *inner;
        let fields = spans.entry(span.metadata().name().to_owned()).or_default();
        span.record(&mut Fields(fields, said));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut inner = self.0.lock().expect("no panic");
        event.record(&mut Fields(&mut BTreeSet::new(), &mut inner.1));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The rows of the page whose first cell, a code, begins like this, as its cells.
fn rows(section: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("docs/metrics.md");
    let after = text.split(&format!("## {section}")).nth(1).expect("that section");
    let lines = after.lines().skip(1).take_while(|line| !line.starts_with("## "));
    let cells = |line: &str| -> Vec<String> {
        line.split('|').skip(1).map(|cell| cell.trim().replace('`', "")).collect()
    };
    lines.filter(|line| line.starts_with("| `")).map(cells).collect()
}

/// The values that a metric's label has on the page.
pub(in crate::driver) fn values(metric: &str) -> BTreeSet<String> {
    let row = rows("Metrics").into_iter().find(|cells| cells[0] == metric).expect("its row");
    let (_, values) = row[2].split_once(": ").expect("a label with values");
    values.split(", ").map(str::to_owned).collect()
}

/// Every metric has something to say in this story: a close, a reorganisation, trouble with store
/// and signer, fees that are paid.
async fn story(world: &World) -> (Arbiter, Channel, ChainEventSubscription) {
    world.fees.are(5_000);
    let mut channel = Channel::new(1, Anchors);
    channel.add(received(0));
    channel.next_local(1, &[received(0)]);
    let arbiter = world.watching(&channel).await;
    let mut events =
        arbiter.subscribe(channel.id(), "s", Delivery::Detached).await.expect("watched");
    world.log.refuse(true);
    arbiter.fail_channel(channel.id()).await.expect_err("no room");
    world.log.refuse(false);
    let source = PreimageSource::Node;
    arbiter.preimage(channel.id(), preimage(0), source).await.expect("watched");
    world.signer.is(channel.id(), Mood::Fails);
    fail(&arbiter, channel.id()).await;
    world.pass(&arbiter, 1).await;
    world.signer.is(channel.id(), Mood::Well);
    world.pass(&arbiter, 1).await;
    world.chain.mine(vec![channel.local_tx()]);
    world.pass(&arbiter, 7).await;
    let sent: Vec<_> = world.net.sent().into_iter().flatten().collect();
    let spends = |tx: &&bitcoin::Transaction| {
        tx.input.iter().all(|input| input.previous_output.txid == channel.local_tx().compute_txid())
    };
    let sweep = sent.iter().rev().find(spends).expect("a sweep").clone();
    world.chain.mine(vec![sweep]);
    world.pass(&arbiter, 1).await;
    world.chain.undo(1);
    world.chain.mine_many(2);
    arbiter.idle().await.expect("running");
    assert!(events.next().await.is_some());
    (arbiter, channel, events)
}

#[tokio::test(start_paused = true)]
async fn the_page_names_what_is_emitted_and_nothing_else() {
    let seen = Seen::default();
    let _guard = metrics::set_default_local_recorder(&seen);
    let _story = story(&World::default()).await;
    let page: BTreeMap<String, String> =
        rows("Metrics").into_iter().map(|cells| (cells[0].clone(), cells[1].clone())).collect();
    let inner = seen.0.lock().expect("no panic");
    let owned = |kinds: &BTreeMap<String, &str>| -> BTreeMap<String, String> {
        kinds.iter().map(|(name, kind)| (name.clone(), (*kind).to_owned())).collect()
    };
    assert_eq!(owned(&inner.kinds), page, "emitted, and on the page");
    assert_eq!(owned(&inner.described), page, "described, and on the page");
    // And the labels, with their values.
    let mut emitted: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for key in inner.values.keys() {
        let (name, labels) = key.split_once(' ').unwrap_or((key, ""));
        for label in labels.split_whitespace() {
            let (label, value) = label.split_once('=').expect("a value");
            let of = (name.to_owned(), label.to_owned());
            emitted.entry(of).or_default().insert(value.to_owned());
        }
    }
    let on_page: BTreeMap<(String, String), BTreeSet<String>> = rows("Metrics")
        .into_iter()
        .filter_map(|cells| {
            let (label, _) = cells[2].split_once(':')?;
            Some(((cells[0].clone(), label.to_owned()), values(&cells[0])))
        })
        .collect();
    assert!(emitted.keys().eq(on_page.keys()), "{emitted:?}");
    for (of, emitted) in &emitted {
        let page = &on_page[of];
        assert!(emitted.is_subset(page), "{of:?}: {emitted:?}");
        // Gauges tell of each value, always. What counters may tell of is held to the page where it is named.
        if inner.kinds[&of.0] == "gauge" {
            assert_eq!(emitted, page, "{of:?}");
        }
    }
}

/// Names of the fields of the events of a source text: all but its tests.
fn event_fields(source: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().expect("a text");
    let mut fields = BTreeSet::new();
    let mut rest = source;
    while let Some((_, after)) = rest.split_once("tracing::") {
        rest = after;
        let levels = ["trace", "debug", "info", "warn", "error"];
        let body = levels.iter().find_map(|level| after.strip_prefix(level)?.strip_prefix("!("));
        let Some(body) = body else { continue };
        // Arguments, by commas that stand in no bracket and no text.
        let (mut depth, mut quoted, mut argument) = (0, false, String::new());
        for c in body.chars() {
            match c {
                '"' => quoted = !quoted,
                '(' | '[' | '{' if !quoted => depth += 1,
                ')' | ']' | '}' if !quoted => depth -= 1,
                _ => {}
            }
            if depth < 0 || (c == ',' && depth == 0 && !quoted) {
                let name = argument.split('=').next().expect("a part").trim();
                let name = name.trim_start_matches(['%', '?']);
                if !name.is_empty() && !name.starts_with('"') {
                    fields.insert(name.to_owned());
                }
                argument.clear();
                if depth < 0 {
                    break;
                }
            } else {
                argument.push(c);
            }
        }
    }
    fields
}

fn sources(of: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(of).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if path.is_dir() && name != "tests" {
            sources(&path, into);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            into.push(std::fs::read_to_string(&path).expect("a text"));
        }
    }
}

#[test]
fn events_have_the_fields_that_the_page_names_and_no_others() {
    let text = r#"tracing::warn!(%a, b = x(1, "c, d"), ?e, f, "g = {h}, i"); tracing::Span"#;
    assert_eq!(event_fields(text), ["a", "b", "e", "f"].map(str::to_owned).into());
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let fields: BTreeSet<String> = all.iter().flat_map(|text| event_fields(text)).collect();
    let page: BTreeSet<String> = rows("Events").into_iter().map(|cells| cells[0].clone()).collect();
    assert_eq!(fields, page);
}

/// The time of an append is that of the store.
#[tokio::test]
async fn the_latency_of_an_append_is_what_the_store_took() {
    let seen = Seen::default();
    let _guard = metrics::set_default_local_recorder(&seen);
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let gate = world.log.hold();
    let (id, update) = (channel.id(), channel.next_local(1, &[]));
    let updating = tokio::spawn({
        let arbiter = arbiter.clone();
        async move { arbiter.update_channel(id, vec![update]).await }
    });
    while world.log.held() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.pass();
    updating.await.expect("no panic").expect("stored");
    let took = seen.value("arb_append_seconds");
    assert!(took.is_some_and(|took| took >= 0.05), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn values_follow_what_happens() {
    let seen = Seen::default();
    let _guard = metrics::set_default_local_recorder(&seen);
    let world = World::default();
    let (arbiter, channel, events) = story(&world).await;
    let tip = world.chain.tip_now().height.0;
    let is = |key: &str, value: f64| assert_eq!(seen.value(key), Some(value), "{key}");
    is("arb_channels phase=closed", 1.0);
    is("arb_channels phase=open", 0.0);
    is("arb_block_height", f64::from(tip));
    is("arb_block_lag", 0.0);
    is("arb_reorg_depth", 1.0);
    is("arb_append_failures_total", 1.0);
    is("arb_tasks_running", 0.0);
    is("arb_subscriptions_open", 1.0);
    is("arb_epochs_open", 0.0);
    let epochs =
        [arbiter.epochs().await.expect("running"), arbiter.epochs().await.expect("running")];
    arbiter.idle().await.expect("running");
    is("arb_epochs_open", 2.0);
    drop(epochs);
    drop(events);
    world.pass(&arbiter, 1).await;
    is("arb_epochs_open", 0.0);
    is("arb_subscriptions_open", 0.0);
    is("arb_claims_total kind=commitment", 1.0);
    assert!(seen.value("arb_task_failures_total task=sign").is_some_and(|failed| failed >= 1.0));
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    let paid = seen.value("arb_fees_paid_sat_total payer=output").expect("a sweep confirmed");
    assert_eq!(paid, report.fees.to_sat() as f64);
    // A quiet channel is in the count; one that is set aside is not.
    for id in [2, 3] {
        let quiet = Channel::new(id, StaticRemotekey);
        arbiter.watch_channel(quiet.facts.clone()).await.expect("sound facts");
    }
    world.log.damage_facts(1);
    world.chain.mine(vec![Channel::new(2, StaticRemotekey).remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    is("arb_channels phase=open", 1.0);
    is("arb_channels_quarantined", 1.0);
    is("arb_alarm of=store", 0.0);
    world.log.is(arb_core::log::Health::Low);
    world.pass(&arbiter, 1).await;
    is("arb_alarm of=store", 1.0);
}

/// A transaction for two channels is paid for once.
#[tokio::test(start_paused = true)]
async fn the_fee_of_a_joined_transaction_is_counted_once() {
    let seen = Seen::default();
    let _guard = metrics::set_default_local_recorder(&seen);
    let world = World::default();
    let mut channels = [1, 2].map(|n| Channel::new(n, StaticRemotekey));
    for channel in &mut channels {
        channel.next_remote(1, &[]);
        channel.revoke(0);
    }
    let policy = Policy { joining: Joining::Allowed, ..Policy::default() };
    let settings = Settings { policy, ..Settings::default() };
    let stated = channels.iter().map(|channel| numbers(channel.id(), 0, 1)).collect();
    let arbiter = world.start_with(settings, stated).await;
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    let breaches = channels.each_ref().map(|channel| channel.remote_tx(0, &[]));
    world.chain.mine(breaches.to_vec());
    arbiter.idle().await.expect("running");
    let sent: Vec<_> = world.net.sent().into_iter().flatten().collect();
    assert_eq!(sent.len(), 1, "one for both");
    let spent = |input: &bitcoin::TxIn| {
        let from = breaches.iter().find(|tx| tx.compute_txid() == input.previous_output.txid);
        from.expect("a breach").output[input.previous_output.vout as usize].value
    };
    let brought: bitcoin::Amount = sent[0].input.iter().map(spent).sum();
    let made: bitcoin::Amount = sent[0].output.iter().map(|output| output.value).sum();
    world.chain.mine(sent.clone());
    arbiter.idle().await.expect("running");
    let paid = seen.value("arb_fees_paid_sat_total payer=output");
    assert_eq!(paid, Some((brought - made).to_sat() as f64));
}

#[tokio::test(start_paused = true)]
async fn what_waits_and_what_is_at_risk_is_measured() {
    let seen = Seen::default();
    let _guard = metrics::set_default_local_recorder(&seen);
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let arbiter = world.watching(&channel).await;
    // Two blocks of three are taken in when the last is asked for.
    world.chain.mine_many(2);
    let last = world.chain.mine(vec![]);
    let lag = Arc::new(Mutex::new(None));
    let (of, to) = (seen.clone(), lag.clone());
    world.chain.before(last, move |_| *to.lock().expect("no panic") = of.value("arb_block_lag"));
    arbiter.idle().await.expect("running");
    assert_eq!(*lag.lock().expect("no panic"), Some(1.0));
    assert_eq!(seen.value("arb_block_lag"), Some(0.0));

    let is = |key: &str, value: f64| assert_eq!(seen.value(key), Some(value), "{key}");
    is("arb_notices_waiting", 0.0);
    fail(&arbiter, channel.id()).await;
    arbiter.idle().await.expect("running");
    is("arb_notices_waiting", 1.0);
    world.pass(&arbiter, 1).await;
    is("arb_channels phase=failing", 1.0);

    // A breach: the peer's balance is ours to take before its delay of 144 blocks is over.
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    let claimed = report.outputs.iter().filter(|output| output.deadline.is_some());
    let value: u64 = claimed.map(|output| output.amount.to_sat()).sum();
    assert!(value > 0);
    for (due, at_risk) in [("past", 0), ("6", 0), ("36", 0), ("144", value), ("later", 0)] {
        is(&format!("arb_value_at_risk_sat due={due}"), at_risk as f64);
    }
    world.pass(&arbiter, 108).await;
    is("arb_value_at_risk_sat due=36", value as f64);
    is("arb_value_at_risk_sat due=144", 0.0);
}

#[tokio::test(start_paused = true)]
async fn spans_are_as_the_page_names_them_and_tell_no_secret() {
    let traced = Traced::default();
    // With one dispatcher alone, a span that a test on another thread comes to first would be
    // judged by that thread, which listens to nothing, and stay off for all.
    let _other = tracing::Dispatch::new(Traced::default());
    let _guard = tracing::subscriber::set_default(traced.clone());
    let _story = story(&World::default()).await;
    let page: BTreeMap<String, BTreeSet<String>> = rows("Spans")
        .into_iter()
        .map(|cells| (cells[0].clone(), cells[1].split(", ").map(str::to_owned).collect()))
        .collect();
    let inner = traced.0.lock().expect("no panic");
    assert_eq!(inner.0, page);
    let secret: String = preimage(0).0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(inner.1.contains("height="), "something was said");
    assert!(!inner.1.contains(&secret) && !inner.1.contains(&format!("{:?}", preimage(0).0)));
}
