//! The arbiter's ports beside an LDK node.
use crate::ldk::{Manager, MemoryKv};
use arb_core::ports::{PointRequest, SignRequest, Signer};
use arb_node_adapter::{Egress, LdkSigner, ManagerFence, RecordedFence, SignError};
use bitcoin::secp256k1::{PublicKey, ecdsa};
use lightning::sign::KeysManager;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// LDK's channel signers, as long as the story lets them.
#[derive(Clone)]
pub(in crate::runner) struct Switched {
    pub(super) signer: Arc<LdkSigner<Arc<KeysManager>, Arc<MemoryKv>>>,
    pub(super) works: Arc<AtomicBool>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(in crate::runner) enum SwitchedError {
    /// The story switched it off.
    #[error("the signer is switched off")]
    Off,
    /// The signer says so.
    #[error(transparent)]
    Signer(#[from] SignError),
}

impl Signer for Switched {
    type Error = SwitchedError;

    async fn sign(&self, request: SignRequest) -> Result<ecdsa::Signature, SwitchedError> {
        if !self.works.load(Ordering::SeqCst) {
            return Err(SwitchedError::Off);
        }
        Ok(self.signer.sign(request).await?)
    }

    async fn point(&self, request: PointRequest) -> Result<Option<PublicKey>, SwitchedError> {
        if !self.works.load(Ordering::SeqCst) {
            return Err(SwitchedError::Off);
        }
        Ok(self.signer.point(request).await?)
    }
}

/// What the arbiter is given by our LDK node.
#[derive(Clone)]
pub(in crate::runner) struct Beside {
    pub(in crate::runner) signer: Switched,
    pub(in crate::runner) egress: Arc<Egress>,
    pub(in crate::runner) fence: RecordedFence<ManagerFence<Arc<Manager>>, Arc<MemoryKv>>,
}
