//! The layers: what is repeated, when, and how many calls are under way.
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{Instant, sleep};
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::RetryLayer;
use tower::timeout::error::Elapsed;

fn backoff(retries: u32) -> Backoff {
    let (first, longest) = (Duration::from_millis(100), Duration::from_millis(300));
    Backoff { first, longest, retries }
}

fn retried(script: Vec<Answers>, retries: u32) -> (Rpc, Heard) {
    let (rpc, heard) = scripted(script);
    (rpc.layer(RetryLayer::new(backoff(retries))), heard)
}

#[tokio::test(start_paused = true)]
async fn waits_double_up_to_the_longest() {
    let busy = || Err(TransportError::Status(503).into());
    let late = || Err(Elapsed::new().into());
    let script = vec![Err(refused()), busy(), late(), fails(-28, "Loading"), says(json!(1))];
    let (rpc, heard) = retried(script, 4);
    let since = Instant::now();
    assert_eq!(rpc.call("a", vec![json!(2)]).await.unwrap(), json!(1));
    assert_eq!(since.elapsed().as_millis(), 100 + 200 + 300 + 300);
    let again = RpcRequest { method: "a", params: vec![json!(2)] };
    assert_eq!(*heard.lock().unwrap(), vec![again; 5]);
    // The next call starts anew.
    let (rpc, _) = retried(vec![Err(refused()), says(json!(1)), Err(refused()), says(json!(2))], 1);
    assert_eq!(rpc.call("a", vec![]).await.unwrap(), json!(1));
    assert_eq!(rpc.call("a", vec![]).await.unwrap(), json!(2));
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_told() {
    let script = (0..3).map(|_| Err(refused())).collect();
    let (rpc, heard) = retried(script, 2);
    let CoreError::Transport(error) = rpc.call("a", vec![]).await.unwrap_err() else {
        panic!("the way to the node failed")
    };
    assert!(matches!(error.downcast_ref(), Some(TransportError::Connect { .. })), "{error:?}");
    assert_eq!(methods(&heard).len(), 3);

    // A node that does not get ready in time has refused nothing.
    let script = (0..3).map(|_| fails(-28, "Loading")).collect();
    let (rpc, _) = retried(script, 2);
    let error = rpc.request("a", vec![]).await.unwrap_err();
    assert!(matches!(error, CoreError::Node { method: "a", .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_and_nonsense_are_not_asked_for_again() {
    let (rpc, _) = retried(vec![fails(-26, "dust")], 5);
    assert_eq!(rpc.request("a", vec![]).await.unwrap(), Err(error(-26, "dust")));
    let malformed = TransportError::Malformed("nonsense".to_owned());
    let (rpc, heard) = retried(vec![Err(malformed.into())], 5);
    assert!(matches!(rpc.call("a", vec![]).await, Err(CoreError::Transport(_))));
    assert_eq!(methods(&heard).len(), 1);
}

#[tokio::test]
async fn a_foreign_service_may_answer_anything() {
    for answers in [vec![], vec![Ok(json!(1)), Ok(json!(2))]] {
        let (rpc, _) = scripted(vec![Ok(answers)]);
        let error = rpc.call("a", vec![]).await.unwrap_err();
        assert!(matches!(error, CoreError::Answer { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn layers_of_the_caller_go_around_the_client() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&under_way), Arc::clone(&most));
    let slow = service_fn(move |_: RpcCall| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_secs(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, BoxError>(RpcReply { results: vec![Ok(json!(1))] })
        }
    });
    let rpc = Rpc::new(slow).layer(ConcurrencyLimitLayer::new(2));
    let since = Instant::now();
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let rpc = rpc.clone();
            tokio::spawn(async move { rpc.call("a", vec![]).await.unwrap() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), json!(1));
    }
    assert_eq!(since.elapsed().as_secs(), 3);
    assert_eq!(most.load(Ordering::SeqCst), 2);
}
