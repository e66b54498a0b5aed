//! Fee estimates of Bitcoin Core.
use super::call::RpcRequest;
use super::client::{CoreError, Rpc};
use super::decode::{feerate, field};
use arb_core::claim::trough::Troughs;
use arb_core::ports::{FeeEstimates, FeeSource};
use bitcoin::FeeRate;
use serde_json::{Value, json};

const ESTIMATE: &str = "estimatesmartfee";
const MEMPOOL: &str = "getmempoolinfo";

/// How Core estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EstimateMode {
    /// Follows a falling market at once.
    #[default]
    Economical,
    /// Also looks at a longer past.
    Conservative,
}

/// Settings of [`CoreFees`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreFeesConfig {
    /// Targets asked for, in blocks, ascending. Core knows none below 2.
    pub targets: Vec<u16>,
    /// How Core estimates.
    pub mode: EstimateMode,
    /// Estimates for as long as the node has too little data for any, ascending by target: after
    /// a first start, or on a test network. Empty: nothing is known then.
    pub fallback: Vec<(u16, FeeRate)>,
}

impl Default for CoreFeesConfig {
    fn default() -> Self {
        Self {
            targets: vec![2, 3, 6, 12, 24, 144],
            mode: EstimateMode::default(),
            fallback: Vec::new(),
        }
    }
}

/// Estimates of Bitcoin Core, and its mempool's floor, in one call.
///
/// ```
/// use arb_watcher::core_rpc::{CoreFees, CoreFeesConfig, Rpc};
/// use bitcoin::FeeRate;
///
/// /// On a test network, 2 sat/vB until the node has enough data.
/// fn fees(rpc: Rpc) -> CoreFees {
///     let fallback = vec![(6, FeeRate::from_sat_per_vb_unchecked(2))];
///     CoreFees::new(rpc, CoreFeesConfig { fallback, ..CoreFeesConfig::default() })
/// }
/// ```
#[derive(Clone, Debug)]
pub struct CoreFees {
    rpc: Rpc,
    config: CoreFeesConfig,
}

impl CoreFees {
    /// The estimates of the node behind `rpc`.
    #[must_use]
    pub const fn new(rpc: Rpc, config: CoreFeesConfig) -> Self {
        Self { rpc, config }
    }

    fn requests(&self) -> Vec<RpcRequest> {
        let mode = match self.config.mode {
            EstimateMode::Economical => "economical",
            EstimateMode::Conservative => "conservative",
        };
        let estimate = |target: &u16| RpcRequest {
            method: ESTIMATE,
            params: vec![json!(target), json!(mode)],
        };
        let mempool = RpcRequest { method: MEMPOOL, params: vec![] };
        std::iter::once(mempool).chain(self.config.targets.iter().map(estimate)).collect()
    }
}

impl FeeSource for CoreFees {
    type Error = CoreError;

    async fn estimates(&self) -> Result<FeeEstimates, CoreError> {
        let mut answers = self.rpc.batch(self.requests()).await?.into_iter();
        let mempool = match answers.next() {
            Some(answer) => answer.map_err(|error| CoreError::Node { method: MEMPOOL, error })?,
            None => Value::Null,
        };
        let floor = feerate(MEMPOOL, field(MEMPOOL, &mempool, "mempoolminfee")?)?;
        let relay = feerate(MEMPOOL, field(MEMPOOL, &mempool, "minrelaytxfee")?)?;

        let mut targets: Vec<(u16, FeeRate)> = Vec::new();
        for (target, answer) in self.config.targets.iter().zip(answers) {
            // One that the node does not take must not cost the others, and least of all the floor.
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::warn!(target, %error, "no estimate");
                    continue;
                }
            };
            // No feerate: too little data.
            let Some(rate) = answer.get("feerate") else { continue };
            let rate = feerate(ESTIMATE, rate)?;
            // Whoever waits longer never pays more.
            let rate = targets.last().map_or(rate, |(_, sooner)| rate.min(*sooner));
            targets.push((*target, rate));
        }
        if targets.is_empty() {
            targets.clone_from(&self.config.fallback);
        }
        Ok(FeeEstimates { targets, floor: floor.max(relay), troughs: Troughs::default() })
    }
}
