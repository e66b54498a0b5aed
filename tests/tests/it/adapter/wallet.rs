//! Wallets both ways: reservations hold, LDK's own handler closes with the arbiter's coins, and LDK's
//! wallet signs nothing but its own inputs.
use super::Failed;
use super::fixtures::{outpoint, spend};
use arb_core::ids::ChannelId;
use arb_core::ports::{Broadcast, CoinRequest, CoinSource, Package, Stake};
use arb_node_adapter::{
    ArbiterCoins, ArbiterEgress, Egress, FromLdkWallet, LDK_CLAIM_IDLE, LdkCoins, Mode,
    MonitorEgress, SyncWallet,
};
use arb_tests::ldk::{Kind, Quiet, Wallet, cut_off};
use arb_watcher::memory::{MemoryCoins, MemoryNetwork};
use bitcoin::secp256k1::SecretKey;
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, ScriptBuf, Transaction, TxIn, TxOut, Witness};
use lightning::chain::ClaimId;
use lightning::events::Event;
use lightning::events::bump_transaction::{
    BumpTransactionEventHandler, CoinSelectionSource, Input,
};
use std::sync::Arc;

const CHANNEL: ChannelId = ChannelId([0; 32]);

async fn coins(values: &[u64]) -> Result<MemoryCoins, Failed> {
    let coins = MemoryCoins::new(SecretKey::from_slice(&[42; 32])?, &[]);
    let script = coins.change_script().await?;
    for (n, value) in (1..).zip(values) {
        let value = Amount::from_sat(*value);
        coins.add(outpoint(n), TxOut { value, script_pubkey: script.clone() });
    }
    Ok(coins)
}

fn wants(claim: u8, sat: u64) -> CoinRequest {
    CoinRequest {
        claim: outpoint(claim),
        amount: Amount::from_sat(sat),
        feerate: FeeRate::from_sat_per_vb_u32(1),
        worth: FeeRate::from_sat_per_vb_u32(1),
        channel: CHANNEL,
        deadline: None,
        most: usize::MAX,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coins_of_ldks_wallet_belong_to_one_claim() -> Result<(), Failed> {
    let ldk = Arc::new(SyncWallet(Arc::new(Wallet(coins(&[50_000, 10_000, 60]).await?))));
    let port = FromLdkWallet::new(ldk);
    let chosen = |coins: Vec<arb_core::ports::Coin>| -> Vec<u64> {
        coins.iter().map(|coin| coin.output.value.to_sat()).collect()
    };
    assert_eq!(chosen(port.select(wants(101, 20_000)).await?), [50_000]);
    // Neither the one that is taken nor the one that costs more than it brings.
    assert_eq!(chosen(port.select(wants(102, 40_000)).await?), [10_000]);
    assert_eq!(chosen(port.select(wants(101, 4_000)).await?), [50_000], "the same again");
    assert!(port.select(wants(103, 1)).await?.is_empty());
    port.release(outpoint(101)).await?;
    assert_eq!(chosen(port.select(wants(103, 1)).await?), [50_000]);
    port.release(outpoint(103)).await?;
    port.reserve(outpoint(104), vec![outpoint(1)]).await?;
    assert!(port.select(wants(105, 1)).await?.is_empty());
    // It moves to whoever it is reserved for last.
    port.reserve(outpoint(106), vec![outpoint(1)]).await?;
    assert!(port.select(wants(104, 20_000)).await?.is_empty());
    assert_eq!(chosen(port.select(wants(106, 20_000)).await?), [50_000]);
    // The smallest that is enough, and the large one is left for others.
    port.release(outpoint(106)).await?;
    port.release(outpoint(102)).await?;
    assert_eq!(chosen(port.select(wants(107, 4_000)).await?), [10_000]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ldks_wallet_signs_its_own_inputs_alone() -> Result<(), Failed> {
    let own = coins(&[50_000]).await?;
    let port = FromLdkWallet::new(Arc::new(SyncWallet(Arc::new(Wallet(own.clone())))));
    let signed = Witness::from_slice(&[vec![1, 2, 3]]);
    let channels =
        TxIn { previous_output: outpoint(9), witness: signed.clone(), ..TxIn::default() };
    let wallets = TxIn { previous_output: outpoint(1), ..TxIn::default() };
    let script = port.change_script().await?;
    let output = TxOut { value: Amount::from_sat(40_000), script_pubkey: script.clone() };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![channels, wallets],
        output: vec![output.clone()],
    };
    let spent = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: script.clone() };
    let foreign =
        TxOut { value: Amount::from_sat(330), script_pubkey: ScriptBuf::new_op_return([]) };
    let done = port.sign(tx.clone(), vec![foreign.clone(), spent(50_000)]).await?;
    assert_eq!(done.input[0].witness, signed);
    let expected = own.sign(tx.clone(), vec![foreign, spent(50_000)]).await?;
    assert_eq!(done, expected);
    assert!(port.sign(tx, vec![spent(50_000)]).await.is_err(), "one spent output an input");
    Ok(())
}

/// LDK asks for coins for its claims: each has its own, gives change, and is let go when LDK asks for it
/// no more.
#[tokio::test]
async fn ldks_claims_have_coins_of_ours() -> Result<(), Failed> {
    let own = coins(&[50_000, 20_000]).await?;
    let ldk = LdkCoins::new(own.clone());
    let script = own.change_script().await?;
    let anchor = Input {
        outpoint: outpoint(50),
        previous_utxo: TxOut { value: Amount::from_sat(330), script_pubkey: script.clone() },
        satisfaction_weight: 115,
    };
    let ask = |claim: u8, most: u64| {
        let claim = ClaimId([claim; 32]);
        ldk.select_confirmed_utxos(claim, vec![anchor.clone()], &[], 2_000, most)
    };
    let first = ask(1, 400_000).await.map_err(|()| "no coins")?;
    let [utxo] = first.confirmed_utxos.as_slice() else { panic!("{first:?}") };
    // Version to lock time, an anchor and a coin in, change out: two satoshis each.
    let weight = 42 + 2 * 160 + 115 + utxo.satisfaction_weight + 31 * 4;
    let change = first.change_output.ok_or("no change")?;
    assert_eq!(change.value.to_sat(), 330 + utxo.output.value.to_sat() - 2 * weight);
    let second = ask(2, 400_000).await.map_err(|()| "no coins")?;
    assert_ne!(second.confirmed_utxos, first.confirmed_utxos);
    assert!(ask(3, 400_000).await.is_err(), "nothing is left");
    assert!(ask(1, weight).await.is_err(), "it must be below the limit");
    ldk.best_height(LDK_CLAIM_IDLE - 1).await?;
    assert_eq!(own.reservations().len(), 2);
    ask(2, 400_000).await.map_err(|()| "no coins")?;
    ldk.best_height(LDK_CLAIM_IDLE).await?;
    assert_eq!(own.reservations().len(), 1);
    assert!(ask(3, 400_000).await.is_ok());
    Ok(())
}

/// Whoever may claim an output has the coin that the other had for it: after a change of the mode, and once a channel
/// is handed back.
#[tokio::test]
async fn the_only_coin_goes_to_whoever_may_claim() -> Result<(), Failed> {
    let (own, egress) = (coins(&[50_000]).await?, Arc::new(Egress::new(Mode::Own)));
    let ours = ArbiterCoins::new(own.clone(), egress.clone());
    let ldk = LdkCoins::beside(own.clone(), egress.clone());
    let script = own.change_script().await?;
    let anchor = Input {
        outpoint: outpoint(50),
        previous_utxo: TxOut { value: Amount::from_sat(330), script_pubkey: script },
        satisfaction_weight: 115,
    };
    let of_ldk = || {
        let claim = ClaimId([1; 32]);
        ldk.select_confirmed_utxos(claim, vec![anchor.clone()], &[], 2_000, 400_000)
    };
    assert_eq!(ours.select(wants(50, 1_000)).await?.len(), 1);
    assert_eq!(ours.select(wants(51, 1_000)).await?.len(), 0, "it is taken");
    egress.set(Mode::Observe);
    assert!(of_ldk().await.is_ok());
    egress.set(Mode::Own);
    assert_eq!(ours.select(wants(51, 1_000)).await?.len(), 0, "another output");
    assert_eq!(ours.select(wants(50, 1_000)).await?.len(), 1);
    assert_eq!(own.reservations().keys().copied().collect::<Vec<_>>(), [outpoint(50)]);
    // What is out has its coin for itself, until the channel is LDK's.
    let package = Package {
        transactions: vec![spend(&[outpoint(50), outpoint(1)], 1)],
        stakes: vec![Stake { channel: CHANNEL, outpoint: outpoint(50), deadline: None }],
    };
    let network = ArbiterEgress::new(MemoryNetwork::default(), egress.clone());
    network.broadcast(package).await?;
    assert!(of_ldk().await.is_err());
    egress.hand_back(CHANNEL);
    assert!(of_ldk().await.is_ok());
    assert_eq!(own.reservations().len(), 1);
    Ok(())
}

/// LDK's own handler of `BumpTransaction` events publishes and claims with the arbiter's wallet.
#[tokio::test(flavor = "multi_thread")]
async fn ldk_bumps_with_the_arbiters_coins() -> Result<(), Failed> {
    let mut world = cut_off(Kind::Anchors, Mode::Observe).await?;
    let link = world.link;
    world.net.force_close(0, &link)?;
    let node = &world.net.nodes[0];
    let handler = BumpTransactionEventHandler::new(
        Arc::new(MonitorEgress::new(node.outbox.clone(), node.egress.clone())),
        Arc::new(LdkCoins::new(world.coins())),
        node.keys.clone(),
        Arc::new(Quiet),
    );
    let mut bumps = 0;
    for _ in 0..261 {
        world.net.nodes[0].collect_events();
        let bump = |event: &Event| match event {
            Event::BumpTransaction(bump) => Some(bump.clone()),
            _ => None,
        };
        while let Some(event) = world.net.nodes[0].take_event(bump) {
            handler.handle_event(&event).await;
            bumps += 1;
        }
        world.net.broadcast();
        world.mine(1).await?;
    }
    assert!(bumps >= 3, "the commitment and both HTLCs: {bumps}");
    assert!(world.ours.is_empty());
    assert_eq!(world.net.nodes[0].monitors.get_claimable_balances(&[]), []);
    world.arbiter.shutdown().await;
    Ok(())
}
