//! Signing, and finding the claims that spoil a transaction for the others before it is logged: the
//! network is asked about halves, and halves of these.
use super::line::Place;
use super::work::{Failed, SignerFailed, answer};
use crate::settings::Ports;
use arb_core::arbitrator::HandedOut;
use arb_core::claim::Claim;
use arb_core::claim::build::{BuildError, Draft, Unsigned};
use arb_core::ids::ChannelId;
use arb_core::ports::{Broadcast, Coin, CoinRequest, CoinSource, Signer, Verdict};
use arb_core::units::BlockHeight;
use bitcoin::{FeeRate, OutPoint, ScriptBuf, Transaction};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;

/// What a draft led to.
pub(super) enum Signed {
    /// A transaction, as it goes into the log of each channel.
    Whole(BTreeMap<ChannelId, HandedOut>),
    /// Some of its claims would have the whole of it refused.
    Spoilt(Vec<Spoiler>),
}

/// A claim because of which a transaction of several is refused, and what the network says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spoiler {
    pub(super) channel: ChannelId,
    pub(super) outpoint: OutPoint,
    pub(super) why: String,
}

/// What the wallet gives.
struct Funds {
    coins: Vec<Coin>,
    change: Option<ScriptBuf>,
}

/// Funds and signs a draft. Of one that would be refused, the claims that are to blame are found
/// instead: nothing of it was logged or handed out.
pub(super) async fn sign<S, B, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    draft: Draft,
    place: Option<Place>,
    tip: BlockHeight,
    patience: Duration,
) -> Result<Signed, Failed>
where
    B: Broadcast,
    K: Signer,
    C: CoinSource,
{
    let (unsigned, draft, funds) = match place {
        Some(place) => {
            place.after_those_before(fund(&ports.coins, draft, patience), patience).await?
        }
        None => fund(&ports.coins, draft, patience).await?,
    };
    let transaction = complete(ports, &unsigned, &funds, patience).await?;
    if draft.parent.is_some() && unsigned.coins.len() > 1 {
        let asked = ask(ports, &transaction, patience).await;
        if matches!(asked, Some(Verdict::Refused(_)))
            && let Some((unsigned, transaction)) = smaller(ports, &draft, &funds, patience).await?
        {
            return Ok(Signed::Whole(unsigned.handed_out(&transaction, tip)));
        }
    }
    if !draft.others.is_empty() && refusal(ports, &transaction, patience).await.is_some() {
        let all = draft.claims().count();
        let spoilers = spoilers(ports, draft, &funds, patience).await?;
        // If all are to blame, none is: it is something that they share.
        if !spoilers.is_empty() && spoilers.len() < all {
            return Ok(Signed::Spoilt(spoilers));
        }
    }
    Ok(Signed::Whole(unsigned.handed_out(&transaction, tip)))
}

/// A child with fewer coins, the most valuable of them, if that is not refused whatever it pays: where what
/// another has hung on the commitment leaves no room in its cluster, one that is no larger than what it takes the place
/// of is all that fits, and pays what its coins can.
async fn smaller<S, B, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    draft: &Draft,
    funds: &Funds,
    patience: Duration,
) -> Result<Option<(Unsigned, Transaction)>, Failed>
where
    B: Broadcast,
    K: Signer,
    C: CoinSource,
{
    let mut fewer = Funds { coins: funds.coins.clone(), change: funds.change.clone() };
    fewer.coins.sort_by_key(|coin| (Reverse(coin.output.value), coin.outpoint));
    while fewer.coins.len() > 1 {
        fewer.coins.pop();
        let assembled = draft.clone().assemble(&fewer.coins, fewer.change.clone());
        let Ok(unsigned) = assembled else { return Ok(None) };
        let transaction = complete(ports, &unsigned, &fewer, patience).await?;
        let asked = ask(ports, &transaction, patience).await;
        if !matches!(asked, Some(Verdict::Refused(_))) {
            return Ok(Some((unsigned, transaction)));
        }
    }
    Ok(None)
}

/// The claims that are refused by themselves as well.
async fn spoilers<S, B, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    draft: Draft,
    funds: &Funds,
    patience: Duration,
) -> Result<Vec<Spoiler>, Failed>
where
    B: Broadcast,
    K: Signer,
    C: CoinSource,
{
    let mut found = Vec::new();
    let mut suspects: Vec<Draft> = draft.halves().into_iter().flatten().collect();
    while let Some(suspect) = suspects.pop() {
        let half = suspect.clone().assemble(&funds.coins, funds.change.clone());
        let why = match half {
            Ok(unsigned) => {
                let transaction = complete(ports, &unsigned, funds, patience).await?;
                refusal(ports, &transaction, patience).await
            }
            // By itself it is not worth its fee: no reason to blame it.
            Err(_) => None,
        };
        let Some(why) = why else { continue };
        match suspect.halves() {
            Some(halves) => suspects.extend(halves),
            None => found.push(Spoiler {
                channel: suspect.claim.channel,
                outpoint: suspect.claim.outpoint,
                why,
            }),
        }
    }
    Ok(found)
}

/// Why the network would not have a transaction, whatever it paid; `None` also if it cannot be asked.
async fn refusal<S, B: Broadcast, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    transaction: &Transaction,
    patience: Duration,
) -> Option<String> {
    match ask(ports, transaction, patience).await? {
        Verdict::Refused(why) | Verdict::Conflict(why) => Some(why),
        Verdict::Accepted
        | Verdict::Known
        | Verdict::HandedOver
        | Verdict::FeeTooLow(_)
        | Verdict::NotFinal(_) => None,
    }
}

/// What the network would say to a transaction; `None` if it cannot be asked.
async fn ask<S, B: Broadcast, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    transaction: &Transaction,
    patience: Duration,
) -> Option<Verdict> {
    timeout(patience, ports.broadcast.test(transaction.clone())).await.ok()?.ok()?
}

async fn complete<S, B, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    unsigned: &Unsigned,
    funds: &Funds,
    patience: Duration,
) -> Result<Transaction, Failed>
where
    K: Signer,
    C: CoinSource,
{
    let mut signatures = Vec::new();
    let mut failed: Option<SignerFailed> = None;
    for request in unsigned.requests() {
        let channel = request.channel;
        if failed.as_ref().is_some_and(|failed| failed.channels.contains(&channel)) {
            continue;
        }
        match answer(patience, ports.signer.sign(request)).await {
            Ok(signature) => signatures.push(signature),
            // Which of the channels it is: the others are to go on without them.
            Err(why) => {
                let first = SignerFailed { channels: BTreeSet::new(), why };
                failed.get_or_insert(first).channels.insert(channel);
            }
        }
    }
    if let Some(failed) = failed {
        return Err(Failed::Signer(failed));
    }
    let transaction = unsigned.signed(&signatures);
    if funds.coins.is_empty() {
        return Ok(transaction);
    }
    let signing = ports.coins.sign(transaction, unsigned.prevouts.clone());
    answer(patience, signing).await.map_err(Failed::Other)
}

/// Adds the wallet's coins, if it is to pay. What it cannot pay today is paid in part: a claim
/// that waits for its whole price may wait past its deadline. If it cannot pay for all of them at
/// the least feerate, or not within their budget, some go without the others, who ask again.
async fn fund<C: CoinSource>(
    wallet: &C,
    mut draft: Draft,
    patience: Duration,
) -> Result<(Unsigned, Draft, Funds), Failed> {
    if !draft.wants_coins() {
        let unsigned = draft.clone().assemble(&[], None).map_err(Failed::other)?;
        return Ok((unsigned, draft, Funds { coins: Vec::new(), change: None }));
    }
    let mut change = None;
    let mut whole = draft.clone();
    // Whatever goes without the others, the coins are this one's until the transaction is in the log.
    let (channel, claim) = draft.coins_as;
    let first = draft.clone();
    let mut best: Option<(Unsigned, Draft, Funds)> = None;
    let mut reserved: BTreeSet<OutPoint> = BTreeSet::new();
    loop {
        let (amount, feerate, most) = (draft.coins_wanted(), draft.feerate, draft.most_coins());
        let worth = draft.coins_worth();
        let deadline = draft.claims().filter_map(Claim::needed_by).min();
        let request = CoinRequest { claim, amount, feerate, worth, channel, deadline, most };
        let coins = answer(patience, wallet.select(request)).await.map_err(Failed::Other)?;
        reserved.extend(coins.iter().map(|coin| coin.outpoint));
        if change.is_none() {
            change = Some(answer(patience, wallet.change_script()).await.map_err(Failed::Other)?);
        }
        let cheaper = draft.cheaper();
        match (draft.clone().assemble(&coins, change.clone()), cheaper) {
            (Ok(unsigned), cheaper) => {
                // What there is gets the most of it through at its price, rather than all of it too late; and what there is
                // no room for goes into another one.
                let is_full = coins.len() >= most;
                let fewer = draft.fewer().filter(|_| unsigned.is_short);
                if let Some(fewer) =
                    fewer.filter(|fewer| is_full || fewer.saves_nearly_all_of(&first))
                {
                    // What it has no use for is for the others.
                    answer(patience, wallet.release(claim)).await.map_err(Failed::Other)?;
                    reserved.clear();
                    best = None;
                    whole = fewer;
                    draft = whole.clone();
                    continue;
                }
                // Small coins may weigh so much at a high price that fewer of them pay more at a lower one.
                let known = best.as_ref().map(|(known, ..)| known.feerate);
                let is_better = known.is_none_or(|known| known < unsigned.feerate);
                let is_enough = unsigned.feerate >= three_quarters(draft.feerate);
                if is_better {
                    best = Some((unsigned, draft.clone(), Funds { coins, change: change.clone() }));
                }
                match cheaper {
                    Some(cheaper) if is_better && !is_enough => draft = cheaper,
                    Some(_) | None => break,
                }
            }
            (Err(BuildError::NoCoins | BuildError::OverBudget), _) if best.is_some() => break,
            (Err(BuildError::NoCoins | BuildError::OverBudget), Some(cheaper)) => draft = cheaper,
            (Err(error @ (BuildError::NoCoins | BuildError::OverBudget)), None) => {
                if whole.thrifty && whole.divisible {
                    // Nothing of it is out, and better times are not in sight: the mempool asks for too much.
                    whole.thrifty = false;
                    draft = whole.clone();
                    continue;
                }
                let Some(fewer) = whole.fewer() else {
                    if whole.divisible {
                        // Nothing of it is out: others may have them meanwhile.
                        answer(patience, wallet.release(claim)).await.map_err(Failed::Other)?;
                    }
                    return Err(Failed::other(error));
                };
                answer(patience, wallet.release(claim)).await.map_err(Failed::Other)?;
                reserved.clear();
                whole = fewer;
                draft = whole.clone();
            }
            (Err(error), _) => return Err(Failed::other(error)),
        }
    }
    let (unsigned, draft, funds) = best.ok_or_else(|| Failed::other(BuildError::NoCoins))?;
    if draft.divisible && reserved.len() > unsigned.coins.len() {
        // What it has no use for is for the others.
        answer(patience, wallet.release(claim)).await.map_err(Failed::Other)?;
        let keeps = wallet.reserve(claim, unsigned.coins.clone());
        answer(patience, keeps).await.map_err(Failed::Other)?;
    }
    Ok((unsigned, draft, funds))
}

fn three_quarters(rate: FeeRate) -> FeeRate {
    let rate = rate.to_sat_per_kwu();
    FeeRate::from_sat_per_kwu(rate.saturating_sub(rate >> 2))
}
