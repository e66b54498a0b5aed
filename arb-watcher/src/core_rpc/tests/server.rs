//! An HTTP server that says what it is told to.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Answers and keeps the connection.
    Answer(u16, String),
    /// Answers and then closes the connection without having said so.
    AnswerAndClose(String),
    /// Sends these bytes and closes the connection.
    Raw(String),
    /// Never answers.
    Hang,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Which connection, counted from 0.
    pub(super) connection: usize,
    pub(super) head: String,
    pub(super) body: String,
}

pub(super) struct Server {
    pub(super) address: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    task: JoinHandle<()>,
}

type Script = Arc<Mutex<VecDeque<Act>>>;

impl Server {
    pub(super) async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(Mutex::new(acts.into()));
        let ears = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(connection, stream, Arc::clone(&script), Arc::clone(&ears)));
            }
        });
        Self { address, heard, task }
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    connection: usize,
    mut stream: TcpStream,
    script: Script,
    ears: Arc<Mutex<Vec<Heard>>>,
) {
    while let Some((head, body)) = request(&mut stream).await {
        ears.lock().unwrap().push(Heard { connection, head, body });
        let act = script.lock().unwrap().pop_front().expect("no more requests");
        let (text, close) = match act {
            Act::Answer(status, body) => (response(status, &body), false),
            Act::AnswerAndClose(body) => (response(200, &body), true),
            Act::Raw(text) => (text, true),
            Act::Hang => std::future::pending().await,
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        if close {
            return;
        }
    }
}

fn response(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
            });
            if body.len() >= length.map_or(0, |length| length.unwrap()) {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
}
