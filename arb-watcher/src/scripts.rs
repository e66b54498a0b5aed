//! The ports that say whose a script is and that hand scripts out, boxed: most nodes have one, and
//! none needs to name it.
use arb_core::ids::ChannelId;
use arb_core::ports::{Destinations, OurScripts, ScriptOwner};
use bitcoin::ScriptBuf;
use lru::LruCache;
use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

/// Scripts that are known to have been handed out: a wallet that gives one twice does so soon, and nothing here
/// grows with the channels that a node ever had.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// Says whose a script is. By default, nothing is the node's but what its facts name: then a mutual
/// close is known by the agreed scripts alone.
///
/// ```
/// use arb_core::ports::{OurScripts, ScriptOwner};
/// use arb_watcher::ScriptsPort;
/// use bitcoin::ScriptBuf;
///
/// struct Wallet;
///
/// impl OurScripts for Wallet {
///     type Error = std::io::Error;
///
///     async fn owners(&self, scripts: Vec<ScriptBuf>) -> Result<Vec<ScriptOwner>, Self::Error> {
///         Ok(scripts.iter().map(|_| ScriptOwner::Node).collect())
///     }
/// }
///
/// let port = ScriptsPort::new(Wallet);
/// let none = ScriptsPort::default();
/// # let _ = (port, none);
/// ```
#[derive(Clone)]
pub struct ScriptsPort {
    judge: Arc<dyn Judge>,
    issuer: Option<Arc<dyn Issue>>,
    reuse: Reuse,
    /// What was handed out last in this run.
    issued: Arc<Mutex<LruCache<ScriptBuf, ()>>>,
}

/// Whether claims of several channels may pay one script, where the arbiter asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// No: a script that was handed out before in this run is refused. The last 16,384 are remembered.
    #[default]
    Never,
    /// Yes: whatever is handed out is taken.
    Allowed,
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

trait Judge: Send + Sync {
    fn judge(&self, scripts: Vec<ScriptBuf>) -> Pending<'_, Vec<(ScriptBuf, ScriptOwner)>>;
}

impl<P: OurScripts> Judge for P {
    fn judge(&self, scripts: Vec<ScriptBuf>) -> Pending<'_, Vec<(ScriptBuf, ScriptOwner)>> {
        Box::pin(async move {
            let owners = self.owners(scripts.clone()).await.map_err(|error| error.to_string())?;
            if owners.len() != scripts.len() {
                return Err(format!("{} answers for {} scripts", owners.len(), scripts.len()));
            }
            Ok(scripts.into_iter().zip(owners).collect())
        })
    }
}

trait Issue: Send + Sync {
    fn issue(&self, channel: ChannelId) -> Pending<'_, ScriptBuf>;
}

impl<P: Destinations> Issue for P {
    fn issue(&self, channel: ChannelId) -> Pending<'_, ScriptBuf> {
        Box::pin(async move { self.fresh(channel).await.map_err(|error| error.to_string()) })
    }
}

impl ScriptsPort {
    /// The port of a node that knows its scripts.
    #[must_use]
    pub fn new(port: impl OurScripts) -> Self {
        let issued = Arc::new(Mutex::new(LruCache::new(REMEMBERED)));
        Self { judge: Arc::new(port), issuer: None, reuse: Reuse::Never, issued }
    }

    /// The same, and claims of a channel whose facts name no destination pay to a script from this
    /// port. It becomes part of the facts: a restart neither changes it nor asks for another.
    #[must_use]
    pub fn paying_to(self, port: impl Destinations, reuse: Reuse) -> Self {
        Self { issuer: Some(Arc::new(port)), reuse, ..self }
    }

    /// Each script with its owner.
    pub(crate) async fn judge(
        &self,
        scripts: Vec<ScriptBuf>,
    ) -> Result<Vec<(ScriptBuf, ScriptOwner)>, String> {
        self.judge.judge(scripts).await
    }

    /// A destination for a channel that has none.
    pub(crate) async fn issue(&self, channel: ChannelId) -> Result<ScriptBuf, String> {
        let issuer = self.issuer.as_ref().ok_or("no port hands out scripts")?;
        let script = issuer.issue(channel).await?;
        if script.is_empty() {
            return Err("the script is empty".to_owned());
        }
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        match (issued.put(script.clone(), ()), self.reuse) {
            (None, _) | (Some(()), Reuse::Allowed) => Ok(script),
            (Some(()), Reuse::Never) => Err("the script was handed out before".to_owned()),
        }
    }
}

impl Default for ScriptsPort {
    fn default() -> Self {
        Self::new(Nobody)
    }
}

impl fmt::Debug for ScriptsPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptsPort").finish_non_exhaustive()
    }
}

/// Nothing is the node's.
struct Nobody;

impl OurScripts for Nobody {
    type Error = std::convert::Infallible;

    async fn owners(&self, scripts: Vec<ScriptBuf>) -> Result<Vec<ScriptOwner>, Self::Error> {
        Ok(vec![ScriptOwner::Other; scripts.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Hands out what it is told to.
    struct Addresses(Arc<AtomicU64>);

    impl Destinations for Addresses {
        type Error = std::convert::Infallible;

        async fn fresh(&self, _: ChannelId) -> Result<ScriptBuf, Self::Error> {
            Ok(ScriptBuf::from_bytes(self.0.load(Ordering::SeqCst).to_be_bytes().to_vec()))
        }
    }

    /// Forgets to answer for the last one.
    struct Forgetful;

    impl OurScripts for Forgetful {
        type Error = std::convert::Infallible;

        async fn owners(&self, scripts: Vec<ScriptBuf>) -> Result<Vec<ScriptOwner>, Self::Error> {
            Ok(vec![ScriptOwner::Node; scripts.len() - 1])
        }
    }

    #[tokio::test]
    async fn too_few_answers_are_none() {
        let scripts = vec![ScriptBuf::new(), ScriptBuf::from_bytes(vec![0x51])];
        let judged = ScriptsPort::new(Forgetful).judge(scripts).await;
        assert_eq!(judged, Err("1 answers for 2 scripts".to_owned()));
    }

    #[tokio::test]
    async fn what_was_handed_out_is_known_for_long_and_not_for_ever() {
        let number = Arc::new(AtomicU64::new(0));
        let port = ScriptsPort::default().paying_to(Addresses(number.clone()), Reuse::Never);
        let issue = async |of: u64| {
            number.store(of, Ordering::SeqCst);
            port.issue(ChannelId([1; 32])).await.is_ok()
        };
        let most = REMEMBERED.get() as u64;
        for of in 0..most {
            assert!(issue(of).await);
        }
        // Asking for it counts: it is known anew.
        assert!(!issue(0).await && !issue(most - 1).await);
        assert!(issue(most).await, "one too many");
        assert!(issue(1).await, "the oldest is forgotten");
        let issued = port.issued.lock().expect("no panic");
        assert_eq!(issued.len(), REMEMBERED.get());
    }
}
