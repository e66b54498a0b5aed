//! Ports of tests that say what they are asked, how often and in which order.
use arb_core::claim::trough::PastBlock;
use arb_core::ports::{BlockFees, BlockSource, FeeEstimates, FeeSource};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::{Block, BlockHash, OutPoint, Transaction};
use mockall::mock;
use std::future::Future;

/// Why a port fails.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
pub(crate) struct Down;

mock! {
    pub(crate) Source {}
    impl BlockSource for Source {
        type Error = Down;
        fn tip(&self) -> impl Future<Output = Result<BlockRef, Down>> + Send;
        fn hash_at(
            &self,
            height: BlockHeight,
        ) -> impl Future<Output = Result<Option<BlockHash>, Down>> + Send;
        fn block(
            &self,
            hash: BlockHash,
        ) -> impl Future<Output = Result<Option<Block>, Down>> + Send;
        fn mempool_spenders(
            &self,
            outpoints: Vec<OutPoint>,
        ) -> impl Future<Output = Result<Vec<Transaction>, Down>> + Send;
        fn changed(&self) -> impl Future<Output = ()> + Send;
    }
    impl BlockFees for Source {
        fn past_block(
            &self,
            hash: BlockHash,
        ) -> impl Future<Output = Result<Option<PastBlock>, Down>> + Send;
    }
}

mock! {
    pub(crate) Estimator {}
    impl FeeSource for Estimator {
        type Error = Down;
        fn estimates(&self) -> impl Future<Output = Result<FeeEstimates, Down>> + Send;
    }
}
