//! `Mempool`: what the network would mine next, so that a guard knows what LDK has got through.
use arb_core::ports::SeesMempool;
use bitcoin::{OutPoint, Transaction};
use core::future::{Future, ready};

/// Transactions that wait for a block. Every block source that [sees them](SeesMempool) is one.
pub trait Mempool: Send + Sync + 'static {
    /// Transactions of the mempool that spend any of these outputs; `Err` says why that is not
    /// known at the moment.
    fn spenders(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> impl Future<Output = Result<Vec<Transaction>, String>> + Send;
}

impl<S: SeesMempool> Mempool for S {
    async fn spenders(&self, outpoints: Vec<OutPoint>) -> Result<Vec<Transaction>, String> {
        self.mempool_spenders(outpoints).await.map_err(|error| error.to_string())
    }
}

/// The mempool is not seen: only what is confirmed counts as got through.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMempool;

impl Mempool for NoMempool {
    fn spenders(
        &self,
        _: Vec<OutPoint>,
    ) -> impl Future<Output = Result<Vec<Transaction>, String>> + Send {
        ready(Ok(Vec::new()))
    }
}
