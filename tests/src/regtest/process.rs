//! The bitcoind process: its directory, its arguments, its life.
use super::{PATIENCE, RegtestError, Result};
use arb_watcher::core_rpc::{Auth, Rpc};
use serde_json::json;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;
use tower::ServiceBuilder;

/// A feerate floor of one satoshi a virtual byte, whatever the node's default is.
const ARGUMENTS: &[&str] = &[
    "-regtest",
    "-server",
    "-listen=0",
    "-connect=0",
    "-dnsseed=0",
    "-fixedseeds=0",
    "-printtoconsole=0",
    "-acceptnonstdtxn=0",
    "-minrelaytxfee=0.00001",
    "-incrementalrelayfee=0.00001",
    "-blockmintxfee=0.00001",
    "-rpcthreads=8",
];

/// Ports that are tried before the last one.
const PORTS: usize = 4;
/// What the node says if another program has its port.
const PORT_TAKEN: &str = "Unable to bind any endpoint for RPC server";

/// A bitcoind that is started and stopped; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    executable: OsString,
    directory: TempDir,
    port: u16,
    always: Vec<String>,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Process {
    pub(super) fn new(executable: OsString, always: &[&str]) -> Result<Self> {
        let io = |what| move |source| RegtestError::Io { what, source };
        Ok(Self {
            executable,
            directory: TempDir::with_prefix("arb-regtest-").map_err(io("no directory"))?,
            port: free_port().map_err(io("no free port"))?,
            always: owned(always),
            arguments: Vec::new(),
            child: None,
        })
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn cookie(&self) -> PathBuf {
        self.directory().join("regtest/.cookie")
    }

    /// A client that repeats nothing: mining twice is not mining once.
    pub(super) fn rpc(&self) -> Rpc {
        let transport = Rpc::builder(self.address(), Auth::Cookie(self.cookie())).transport();
        Rpc::new(ServiceBuilder::new().timeout(PATIENCE).service(transport))
    }

    /// Arguments for the next start, in place of those set before.
    pub(super) fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = owned(arguments);
    }

    /// Starts the process for the first time: on another port if somebody has taken the one that
    /// was free.
    pub(super) async fn first_start(&mut self) -> Result<()> {
        for _ in 0..PORTS {
            match self.start().await {
                Err(RegtestError::Process { log, .. }) if log.contains(PORT_TAKEN) => {
                    let io = |source| RegtestError::Io { what: "no free port", source };
                    self.port = free_port().map_err(io)?;
                }
                started => return started,
            }
        }
        self.start().await
    }

    /// Starts the process and waits until it answers and has read its mempool.
    pub(super) async fn start(&mut self) -> Result<()> {
        let io = |what| move |source| RegtestError::Io { what, source };
        let output = File::create(self.output()).map_err(io("no file for the node's output"))?;
        let errors = output.try_clone().map_err(io("no file for the node's errors"))?;
        let child = Command::new(&self.executable)
            .arg(format!("-datadir={}", self.directory().display()))
            .args(ARGUMENTS)
            .arg(format!("-rpcport={}", self.port))
            .args(&self.always)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(io("bitcoind does not start"))?;
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        let rpc = self.rpc();
        loop {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(self.failure(format!("ended with {status}")));
            }
            let info = rpc.call("getmempoolinfo", vec![]).await;
            if info.is_ok_and(|info| info["loaded"] == json!(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.failure("does not come up".to_owned()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the process in good order. Nothing happens if it is not running.
    pub(super) async fn stop(&mut self) -> Result<()> {
        if self.child.is_none() {
            return Ok(());
        }
        self.rpc().call("stop", vec![]).await?;
        let deadline = Instant::now() + PATIENCE;
        while let Some(child) = &mut self.child {
            let ended = child
                .try_wait()
                .map_err(|source| RegtestError::Io { what: "bitcoind is not watched", source })?;
            if ended.is_some() {
                self.child = None;
            } else if Instant::now() > deadline {
                return Err(self.failure("does not end".to_owned()));
            } else {
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Deletes the mempool that a stopped node left for its next start.
    pub(super) fn forget_mempool(&self) -> Result<()> {
        match fs::remove_file(self.directory().join("regtest/mempool.dat")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RegtestError::Io { what: "mempool.dat stays", source })
            }
            _ => Ok(()),
        }
    }

    fn output(&self) -> PathBuf {
        self.directory().join("output.txt")
    }

    fn failure(&self, what: String) -> RegtestError {
        let mut log = fs::read_to_string(self.output()).unwrap_or_default();
        let debug = fs::read_to_string(self.directory().join("regtest/debug.log"));
        let debug = debug.unwrap_or_default();
        let lines: Vec<&str> = debug.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(20)) {
            log.push_str(line);
            log.push('\n');
        }
        RegtestError::Process { what, log }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing can be done about a failure here; a process that has ended is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
