//! One build of bitcoind at a time for a cache folder.
//!
//! The lock is a socket address of Linux' abstract namespace: the kernel gives it to one process and
//! takes it back however that process ends, so that no lock is ever left behind.

use std::path::Path;
use std::process::Stdio;

use crate::Outcome;

/// Held until dropped, and until the children that were given it have ended.
#[cfg(target_os = "linux")]
pub(super) struct Held {
    socket: std::os::unix::net::UnixListener,
}

#[cfg(target_os = "linux")]
impl Held {
    /// An input without content that keeps the lock for a child which outlives this process.
    pub(super) fn share(&self) -> Outcome<Stdio> {
        let twin = self.socket.try_clone().map_err(|e| format!("lock: {e}"))?;
        Ok(Stdio::from(std::os::fd::OwnedFd::from(twin)))
    }
}

/// Waits until no other process holds the lock of that folder.
#[cfg(target_os = "linux")]
pub(super) fn acquire(folder: &Path) -> Outcome<Held> {
    use std::io::ErrorKind;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let failed = |e| format!("lock of {}: {e}", folder.display());
    let address = SocketAddr::from_abstract_name(name(folder)).map_err(failed)?;
    let mut told = false;
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(socket) => return Ok(Held { socket }),
            Err(e) if e.kind() == ErrorKind::AddrInUse => {
                if !told {
                    eprintln!("waiting for another build in {}", folder.display());
                    told = true;
                }
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            Err(e) => return Err(failed(e)),
        }
    }
}

/// An abstract name has room for 107 bytes: a long path gives way to its hash.
#[cfg(target_os = "linux")]
fn name(folder: &Path) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};

    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    format!("arbiter-bitcoind-build-{:016x}", hasher.finish())
}

/// Never made.
#[cfg(not(target_os = "linux"))]
pub(super) enum Held {}

#[cfg(not(target_os = "linux"))]
impl Held {
    pub(super) fn share(&self) -> Outcome<Stdio> {
        match *self {}
    }
}

/// Elsewhere nothing is built.
#[cfg(not(target_os = "linux"))]
pub(super) fn acquire(_: &Path) -> Outcome<Held> {
    Err(format!("bitcoind is built on Linux only: name one in {}", super::VARIABLE))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_second_build_waits_for_the_first() {
        let folder = std::env::temp_dir().join(format!("arb-lock-{}", std::process::id()));
        let first = acquire(&folder).unwrap();
        let (sender, receiver) = mpsc::channel();
        let second = std::thread::spawn(move || {
            let held = acquire(&folder).unwrap();
            sender.send(()).unwrap();
            drop(held);
        });
        assert!(receiver.recv_timeout(Duration::from_millis(500)).is_err());
        drop(first);
        assert!(receiver.recv_timeout(Duration::from_secs(10)).is_ok());
        second.join().unwrap();
    }

    #[test]
    fn a_child_keeps_the_lock_of_a_parent_that_is_gone() {
        let folder = Path::new("/nowhere/shared");
        let held = acquire(folder).unwrap();
        let mut command = std::process::Command::new("sleep");
        let mut child = command.arg("1").stdin(held.share().unwrap()).spawn().unwrap();
        drop((command, held));
        let start = std::time::Instant::now();
        let _again = acquire(folder).unwrap();
        assert!(start.elapsed() > Duration::from_millis(500));
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn folders_do_not_wait_for_each_other() {
        let _a = acquire(Path::new("/nowhere/a")).unwrap();
        let _b = acquire(Path::new("/nowhere/b")).unwrap();
    }
}
