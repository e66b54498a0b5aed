//! The port that says whose a script is, boxed: most nodes have one, and none needs to name it.
use arb_core::ports::{OurScripts, ScriptOwner};
use bitcoin::ScriptBuf;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

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
pub struct ScriptsPort(Arc<dyn Judge>);

type Verdicts = Result<Vec<(ScriptBuf, ScriptOwner)>, String>;

trait Judge: Send + Sync {
    fn judge(&self, scripts: Vec<ScriptBuf>)
    -> Pin<Box<dyn Future<Output = Verdicts> + Send + '_>>;
}

impl<P: OurScripts> Judge for P {
    fn judge(
        &self,
        scripts: Vec<ScriptBuf>,
    ) -> Pin<Box<dyn Future<Output = Verdicts> + Send + '_>> {
        Box::pin(async move {
            let owners = self.owners(scripts.clone()).await.map_err(|error| error.to_string())?;
            if owners.len() != scripts.len() {
                return Err(format!("{} answers for {} scripts", owners.len(), scripts.len()));
            }
            Ok(scripts.into_iter().zip(owners).collect())
        })
    }
}

impl ScriptsPort {
    /// The port of a node that knows its scripts.
    #[must_use]
    pub fn new(port: impl OurScripts) -> Self {
        Self(Arc::new(port))
    }

    /// Each script with its owner.
    pub(crate) async fn judge(&self, scripts: Vec<ScriptBuf>) -> Verdicts {
        self.0.judge(scripts).await
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
