//! The transport: what goes over the wire, and whatever may come back.
use super::server::{Act, Server};
use super::*;
use tower::{Service, ServiceExt};

fn call(methods: &[&'static str]) -> RpcCall {
    let request = |method: &&'static str| RpcRequest { method, params: vec![json!(1), json!("x")] };
    RpcCall::new(methods.iter().map(request).collect())
}

fn password() -> Auth {
    Auth::Password { user: "alice".to_owned(), password: "secret".to_owned() }
}

fn transport(server: &Server) -> HttpTransport {
    HttpTransport::new(server.address.clone(), password(), 1_000)
}

async fn ask(transport: &HttpTransport, call: RpcCall) -> Result<RpcReply, TransportError> {
    transport.clone().ready().await?.call(call).await
}

fn result(id: u32, value: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{value}}}"#)
}

#[tokio::test]
async fn one_connection_serves_call_after_call() {
    let acts = vec![Act::Answer(200, result(0, "7")), Act::Answer(200, result(0, "null"))];
    let server = Server::start(acts).await;
    let transport = transport(&server);
    let first = ask(&transport, call(&["one"])).await.unwrap();
    assert_eq!(first.results, [Ok(json!(7))]);
    let second = ask(&transport, call(&["two"])).await.unwrap();
    assert_eq!(second.results, [Ok(Value::Null)]);

    let heard = server.heard();
    assert_eq!([heard[0].connection, heard[1].connection], [0, 0]);
    let head = heard[0].head.to_ascii_lowercase();
    assert!(head.starts_with("post / http/1.1"), "{head}");
    assert!(head.contains(&format!("host: {}", server.address)), "{head}");
    // base64("alice:secret")
    assert!(heard[0].head.contains("Basic YWxpY2U6c2VjcmV0"), "{head}");
    let body: Value = serde_json::from_str(&heard[0].body).unwrap();
    assert_eq!(body, json!({"jsonrpc": "2.0", "id": 0, "method": "one", "params": [1, "x"]}));
}

#[tokio::test]
async fn a_batch_is_answered_in_any_order() {
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-5,"message":"no"}}"#;
    let body = format!("[{},{error},{}]", result(2, "3"), result(0, "1"));
    let server = Server::start(vec![Act::Answer(200, body)]).await;
    let reply = ask(&transport(&server), call(&["a", "b", "c"])).await.unwrap();
    let no = RpcError { code: -5, message: "no".to_owned() };
    assert_eq!(reply.results, [Ok(json!(1)), Err(no), Ok(json!(3))]);
    let heard: Value = serde_json::from_str(&server.heard()[0].body).unwrap();
    assert_eq!(heard[2]["method"], "c");
    // Nothing to ask: nothing is sent.
    assert_eq!(ask(&transport(&server), call(&[])).await.unwrap().results, []);
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn an_error_of_the_node_is_an_answer_whatever_its_status() {
    let body = r#"{"result":null,"error":{"code":-28,"message":"Loading"},"id":0}"#;
    for status in [200, 404, 500] {
        let server = Server::start(vec![Act::Answer(status, body.to_owned())]).await;
        let reply = ask(&transport(&server), call(&["a"])).await.unwrap();
        assert_eq!(reply.warmup(), Some(&error(-28, "Loading")));
    }
}

#[tokio::test]
async fn what_is_no_reply_is_malformed() {
    let one = result(0, "1");
    let bodies = [
        String::new(),
        "nonsense".to_owned(),
        "{\"id\":0,\"result\":".to_owned(),
        "17".to_owned(),
        "[]".to_owned(),
        "[3]".to_owned(),
        "{}".to_owned(),
        "{\"id\":0}".to_owned(),
        result(1, "1"),
        format!("[{one},{one}]"),
        r#"{"result":1}"#.to_owned(),
        r#"{"id":-1,"result":1}"#.to_owned(),
        r#"{"id":0,"error":"no"}"#.to_owned(),
        r#"{"id":null,"result":null,"error":{"code":-32700,"message":"Parse error"}}"#.to_owned(),
    ];
    for body in bodies {
        let server = Server::start(vec![Act::Answer(200, body.clone())]).await;
        let error = ask(&transport(&server), call(&["a"])).await.unwrap_err();
        assert!(matches!(error, TransportError::Malformed(_)), "{body}: {error:?}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn broken_http_is_a_transient_error() {
    let texts = [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":0,",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ];
    for text in texts {
        let server = Server::start(vec![Act::Raw(text.to_owned())]).await;
        let error = ask(&transport(&server), call(&["a"])).await.unwrap_err();
        assert!(matches!(error, TransportError::Http(_)), "{text}: {error:?}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn statuses_without_json_are_errors() {
    for (status, transient) in [(503, true), (403, false), (500, false), (302, false)] {
        let server = Server::start(vec![Act::Answer(status, "sorry".to_owned())]).await;
        let error = ask(&transport(&server), call(&["a"])).await.unwrap_err();
        assert!(matches!(error, TransportError::Status(s) if s == status), "{error:?}");
        assert_eq!(error.is_transient(), transient);
    }
}

#[tokio::test]
async fn a_reply_beyond_the_limit_is_not_read() {
    let long = format!("\"{}\"", "x".repeat(2_000));
    let server = Server::start(vec![Act::Answer(200, result(0, &long))]).await;
    let error = ask(&transport(&server), call(&["a"])).await.unwrap_err();
    assert!(matches!(error, TransportError::TooLong { limit: 1_000 }), "{error:?}");
}

#[tokio::test]
async fn an_idle_connection_that_the_node_closed_is_replaced() {
    let acts = vec![Act::AnswerAndClose(result(0, "1")), Act::Answer(200, result(0, "2"))];
    let server = Server::start(acts).await;
    let transport = transport(&server);
    assert_eq!(ask(&transport, call(&["a"])).await.unwrap().results, [Ok(json!(1))]);
    // Time for the close to arrive; a call in between would be repeated by the layer above.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ask(&transport, call(&["a"])).await.unwrap().results, [Ok(json!(2))]);
    assert_eq!(server.heard()[1].connection, 1);
}

#[tokio::test]
async fn no_node_is_a_transient_error() {
    let server = Server::start(vec![]).await;
    let transport = transport(&server);
    drop(server);
    tokio::task::yield_now().await;
    let error = ask(&transport, call(&["a"])).await.unwrap_err();
    assert!(matches!(error, TransportError::Connect { .. }), "{error:?}");
    assert!(error.is_transient());
}

/// A file in the temporary directory that goes away with its guard.
struct Cookie(std::path::PathBuf);

impl Cookie {
    fn new(name: &str) -> Self {
        let name = format!("arb-watcher-{}-{name}.cookie", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_cookie_is_read_again_when_the_node_has_a_new_one() {
    let acts = vec![
        Act::Answer(200, result(0, "1")),
        Act::Answer(401, String::new()),
        Act::Answer(200, result(0, "2")),
        Act::Answer(401, String::new()),
        Act::Answer(401, String::new()),
    ];
    let server = Server::start(acts).await;
    let cookie = Cookie::new("fresh");
    let transport =
        HttpTransport::new(server.address.clone(), Auth::Cookie(cookie.0.clone()), 1_000);
    let error = ask(&transport, call(&["a"])).await.unwrap_err();
    assert!(matches!(error, TransportError::Cookie { .. }), "{error:?}");

    std::fs::write(&cookie.0, "__cookie__:old\n").unwrap();
    assert_eq!(ask(&transport, call(&["a"])).await.unwrap().results, [Ok(json!(1))]);
    std::fs::write(&cookie.0, "__cookie__:new").unwrap();
    assert_eq!(ask(&transport, call(&["a"])).await.unwrap().results, [Ok(json!(2))]);
    let error = ask(&transport, call(&["a"])).await.unwrap_err();
    assert!(matches!(error, TransportError::Unauthorized), "{error:?}");

    let heard = server.heard();
    let sent = |at: usize, text: &str| heard[at].head.contains(text);
    // base64 of "__cookie__:old" and of "__cookie__:new"
    assert!(sent(0, "Basic X19jb29raWVfXzpvbGQ=") && sent(1, "Basic X19jb29raWVfXzpvbGQ="));
    assert!(sent(2, "Basic X19jb29raWVfXzpuZXc="));
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_twice() {
    let server = Server::start(vec![Act::Answer(401, String::new())]).await;
    let error = ask(&transport(&server), call(&["a"])).await.unwrap_err();
    assert!(matches!(error, TransportError::Unauthorized), "{error:?}");
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn a_silent_node_times_out_and_is_asked_again() {
    let acts = vec![Act::Hang, Act::Answer(200, result(0, "5"))];
    let server = Server::start(acts).await;
    let backoff = Backoff { first: Duration::from_millis(1), ..Backoff::default() };
    let rpc = Rpc::builder(server.address.clone(), password())
        .timeout(Duration::from_millis(200))
        .backoff(backoff)
        .build();
    assert_eq!(rpc.call("a", vec![]).await.unwrap(), json!(5));
    assert_eq!(server.heard().len(), 2);
}

#[test]
fn passwords_do_not_reach_debug() {
    let transport = HttpTransport::new("node:1", password(), 1_000);
    let shown = format!("{transport:?} {:?}", Rpc::builder("node:1", password()));
    assert!(shown.contains("alice") && !shown.contains("secret"), "{shown}");
}
