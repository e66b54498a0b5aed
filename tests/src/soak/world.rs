//! What stands around the arbiter of a soak: a chain that forgets its old blocks, a wallet whose
//! coins are renewed, and a store that is opened again after every end.
use super::SoakError;
use super::samples::Sample;
use crate::chain::{EmbeddedChain, Selection};
use crate::world::{Backend, Faults, SharedChain, WorldFees};
use arb_core::arbitrator::Notice;
use arb_core::ids::ChannelId;
use arb_store::{LmdbLog, StoreConfig, StoreError};
use arb_watcher::memory::{MemoryCoins, MemorySigner};
use arb_watcher::{Arbiter, ChannelNumbers, NoticeStream, Ports, ScriptsPort, Settings};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Amount, Block, FeeRate, OutPoint, ScriptBuf, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Blocks that the chain remembers: more than a channel lives.
const REMEMBERED: usize = 1_200;
/// Blocks after which a coin of the wallet is replaced by a new one.
const COIN_AGE: u32 = 400;
const COINS: usize = 12;
const COIN: Amount = Amount::from_sat(2_000_000);
/// How long a killed driver may take to give its store up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything around the arbiter, and the arbiter.
pub(super) struct World {
    chain: SharedChain,
    faults: Arc<Faults>,
    pub(super) signer: MemorySigner,
    wallet: MemoryCoins,
    wallet_script: ScriptBuf,
    /// Heights of the wallet's coins.
    coins: BTreeMap<OutPoint, u32>,
    folder: TempDir,
    arbiter: Option<Arbiter>,
    notices: Option<NoticeStream>,
}

impl World {
    /// A chain with some history, and an arbiter without channels.
    ///
    /// # Errors
    /// The chain or the store refuses.
    pub(super) async fn begin() -> Result<Self, SoakError> {
        let mut chain = EmbeddedChain::new();
        chain.mine_empty(REMEMBERED as u32);
        let key = SecretKey::from_slice(&[7; 32]).map_err(SoakError::unexpected)?;
        let wallet = MemoryCoins::new(key, &[]);
        let wallet_script = change_script(&wallet).await?;
        let mut world = Self {
            chain: SharedChain::new(chain),
            faults: Arc::new(Faults::default()),
            signer: MemorySigner::new(),
            wallet,
            wallet_script,
            coins: BTreeMap::new(),
            folder: tempfile::Builder::new().prefix("arb-soak-").tempdir()?,
            arbiter: None,
            notices: None,
        };
        world.start(Vec::new()).await?;
        Ok(world)
    }

    /// The running arbiter.
    ///
    /// # Errors
    /// It is between two lives.
    pub(super) fn arbiter(&self) -> Result<&Arbiter, SoakError> {
        self.arbiter.as_ref().ok_or_else(|| SoakError::unexpected("no arbiter runs"))
    }

    /// Starts an arbiter on the store.
    ///
    /// # Errors
    /// The store does not open.
    pub(super) async fn start(&mut self, numbers: Vec<ChannelNumbers>) -> Result<(), SoakError> {
        let log = self.open().await?;
        // A wallet that was started anew knows of no reservations.
        self.wallet.forget_reservations();
        let backend = Backend::Embedded(self.chain.clone());
        let ports = Ports {
            source: backend.blocks(),
            broadcast: backend.broadcaster(self.faults.clone()),
            fees: WorldFees { faults: self.faults.clone() },
            signer: self.signer.clone(),
            coins: self.wallet.clone(),
            scripts: ScriptsPort::default(),
        };
        let settings = Settings { retry: Duration::from_millis(5), ..Settings::default() };
        let arbiter = Arbiter::start(log, ports, settings, numbers).await;
        let arbiter = arbiter.map_err(SoakError::unexpected)?;
        self.notices = Some(arbiter.notices().await?);
        self.arbiter = Some(arbiter);
        self.idle().await
    }

    async fn open(&self) -> Result<LmdbLog, SoakError> {
        let config = StoreConfig {
            initial_map: 4 << 20,
            reserve: 64 << 10,
            low: 0,
            critical: 0,
            ..StoreConfig::default()
        };
        let since = tokio::time::Instant::now();
        loop {
            match LmdbLog::open(self.folder.path(), config.clone()) {
                Ok(log) => return Ok(log),
                Err(StoreError::InUse { .. }) if since.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return Err(SoakError::unexpected(error)),
            }
        }
    }

    /// Ends the arbiter, cleanly or not.
    pub(super) async fn end(&mut self, kill: bool) {
        self.notices = None;
        let Some(arbiter) = self.arbiter.take() else { return };
        if kill {
            arbiter.kill();
        }
        arbiter.shutdown().await;
    }

    /// Waits until nothing is under way.
    ///
    /// # Errors
    /// The arbiter has ended by itself.
    pub(super) async fn idle(&self) -> Result<(), SoakError> {
        Ok(self.arbiter()?.idle().await?)
    }

    pub(super) fn height(&self) -> u32 {
        self.chain.with(|chain| chain.height())
    }

    /// Looks at what must not grow; so many tasks are the soak's own.
    ///
    /// # Errors
    /// The system does not say.
    pub(super) fn sample(&self, own: usize) -> Result<Sample, SoakError> {
        let sample = Sample::take(&self.folder.path().join("data.mdb"))?;
        Ok(Sample { tasks: sample.tasks.saturating_sub(own as u64), ..sample })
    }

    /// Makes confirmed outputs, and coins for the wallet if it runs out of them.
    ///
    /// # Errors
    /// The chain refuses.
    pub(super) fn fund(
        &mut self,
        mut payments: Vec<(ScriptBuf, Amount)>,
    ) -> Result<Vec<OutPoint>, SoakError> {
        let wanted = payments.len();
        self.drop_old_coins();
        for _ in self.coins.len()..COINS {
            payments.push((self.wallet_script.clone(), COIN));
        }
        let before = self.height();
        let mut outpoints = self.chain.with(|chain| chain.fund_many(&payments))?;
        self.take_up(before + 1);
        outpoints.truncate(wanted);
        Ok(outpoints)
    }

    /// Old coins are in blocks that the chain is about to forget.
    fn drop_old_coins(&mut self) {
        let reserved: Vec<OutPoint> = self.wallet.reservations().into_values().flatten().collect();
        let lowest = self.height().saturating_sub(COIN_AGE);
        let is_old = |(coin, height): (&OutPoint, &u32)| {
            (*height < lowest && !reserved.contains(coin)).then_some(*coin)
        };
        let old: Vec<OutPoint> = self.coins.iter().filter_map(is_old).collect();
        for coin in old {
            self.coins.remove(&coin);
            self.wallet.remove(&coin);
        }
    }

    /// Mines a block, of the mempool or of nothing.
    pub(super) fn mine(&mut self, full: bool) {
        let selection = if full { Selection::All } else { Selection::Empty };
        let height = self.chain.with(|chain| {
            chain.mine(&selection);
            chain.height()
        });
        self.take_up(height);
        self.chain.announce();
    }

    /// The wallet reads the blocks from this height on.
    fn take_up(&mut self, from: u32) {
        for height in from..=self.height() {
            let block = self.chain.with(|chain| chain.block_at(height).cloned());
            let Some(block) = block else { continue };
            for tx in &block.txdata {
                for input in &tx.input {
                    self.coins.remove(&input.previous_output);
                    self.wallet.remove(&input.previous_output);
                }
                let txid = tx.compute_txid();
                for (vout, output) in (0u32..).zip(&tx.output) {
                    if output.script_pubkey == self.wallet_script {
                        let outpoint = OutPoint { txid, vout };
                        self.coins.insert(outpoint, height);
                        self.wallet.add(outpoint, output.clone());
                    }
                }
            }
        }
    }

    /// Disconnects blocks, and mines one more than there were. Some of their transactions are
    /// gone for good.
    ///
    /// # Errors
    /// The chain refuses.
    pub(super) fn reorganise(
        &mut self,
        depth: u32,
        gone: &dyn Fn(&Transaction) -> bool,
    ) -> Result<(), SoakError> {
        let tip = self.height();
        let lowest = tip.saturating_sub(depth) + 1;
        let blocks: Vec<Arc<Block>> = self.chain.with(|chain| {
            (lowest..=tip).rev().filter_map(|height| chain.block_at(height).cloned()).collect()
        });
        for tx in blocks.iter().flat_map(|block| block.txdata.iter().rev()) {
            self.give_back(tx);
        }
        self.chain.with(|chain| chain.disconnect(depth, gone))?;
        for _ in 0..=depth {
            self.mine(true);
        }
        Ok(())
    }

    fn give_back(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        for vout in 0..tx.output.len() as u32 {
            self.coins.remove(&OutPoint { txid, vout });
            self.wallet.remove(&OutPoint { txid, vout });
        }
        for outpoint in tx.input.iter().map(|input| input.previous_output) {
            let found = self.chain.with(|chain| {
                Some((chain.prevout(&outpoint)?.clone(), chain.tx_height(&outpoint.txid)?))
            });
            if let Some((output, height)) = found
                && output.script_pubkey == self.wallet_script
            {
                self.coins.insert(outpoint, height);
                self.wallet.add(outpoint, output);
            }
        }
    }

    /// Hands a transaction of the peer's to the mempool; whether it is in.
    pub(super) fn submit(&self, tx: &Transaction) -> bool {
        let taken = self.chain.with(|chain| chain.submit(tx.clone()).is_ok());
        self.chain.announce();
        taken
    }

    /// Hands a commitment and its child to the mempool; whether they are in.
    pub(super) fn submit_both(&self, package: [Transaction; 2]) -> bool {
        let taken = self.chain.with(|chain| chain.submit_package(&package).outcome.is_ok());
        self.chain.announce();
        taken
    }

    /// Whether an output is confirmed and unspent.
    pub(super) fn is_unspent(&self, outpoint: &OutPoint) -> bool {
        self.chain.with(|chain| chain.utxo(outpoint).is_some())
    }

    /// Whether an output is confirmed, and nothing spends it, nor is about to.
    pub(super) fn is_free(&self, outpoint: &OutPoint) -> bool {
        self.chain.with(|chain| {
            chain.utxo(outpoint).is_some() && chain.mempool_spender(outpoint).is_none()
        })
    }

    pub(super) fn set_feerate(&self, feerate: FeeRate) {
        self.faults.set_feerate(feerate, None);
    }

    /// Reads the notices that are there, and acknowledges them.
    ///
    /// # Errors
    /// The arbiter has ended by itself.
    pub(super) async fn acknowledge(&mut self) -> Result<Vec<(ChannelId, Notice)>, SoakError> {
        let mut told = Vec::new();
        loop {
            let Some(notices) = &mut self.notices else { return Ok(told) };
            let next = tokio::select! {
                biased;
                next = notices.next() => next,
                () = std::future::ready(()) => None,
            };
            let Some((id, notice)) = next else { return Ok(told) };
            match self.arbiter()?.acknowledge(id, notice.key()).await {
                // It may be forgotten since.
                Ok(()) | Err(arb_watcher::CommandError::UnknownChannel(_)) => {}
                Err(error) => return Err(error.into()),
            }
            told.push((id, notice));
        }
    }

    /// The world's own memory of the past does not grow.
    pub(super) fn forget(&mut self) {
        self.faults.forget();
        self.chain.with(|chain| chain.forget(REMEMBERED));
    }
}

async fn change_script(wallet: &MemoryCoins) -> Result<ScriptBuf, SoakError> {
    use arb_core::ports::CoinSource;
    wallet.change_script().await.map_err(SoakError::unexpected)
}
