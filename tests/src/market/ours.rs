//! Our scheduler, as the engine calls it: a plan for each channel after each block, from what is
//! open and what was handed out before.
use super::load::{Load, Role};
use super::world::{Bid, Policy, View};
use arb_core::arbitrator::{Acts, HandedOut, Refusal, Rejections, TxKind};
use arb_core::claim::plan::{Step, plan};
use arb_core::claim::{Claim, Deadline, SigningKey, SingleSpend, SpendPath, Unlock};
use arb_core::ids::{ChannelId, Preimage};
use arb_core::units::BlockHeight;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey, ecdsa};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid};
use std::collections::BTreeMap;

/// Plans for one block, at most: each leads to signatures or ends it.
const ROUNDS: usize = 20;

pub(super) struct Scheduler {
    claims: Vec<Claim>,
    acts: BTreeMap<u32, Acts>,
    signature: ecdsa::Signature,
}

impl Scheduler {
    pub(super) fn new(load: &Load) -> Self {
        let secp = Secp256k1::signing_only();
        let secret = SecretKey::from_slice(&[7; 32]).expect("a valid key");
        let key = PublicKey::from_secret_key(&secp, &secret);
        let signature = ecdsa::Signature::from_compact(&[1; 64]).expect("in range");
        let claims = load.outputs.iter().enumerate().map(|(at, output)| {
            let unlock = match output.role {
                Role::Success => Unlock::Preimage(Preimage([3; 32])),
                Role::Timeout | Role::Sweep => Unlock::Empty,
                Role::PenaltyBalance => Unlock::One,
                Role::PenaltyHtlc => Unlock::RevocationKey(key),
            };
            let kind = match output.role {
                Role::Success | Role::Timeout => TxKind::Claim,
                Role::PenaltyBalance | Role::PenaltyHtlc => TxKind::Penalty,
                Role::Sweep => TxKind::Sweep,
            };
            let value = Amount::from_sat(output.value);
            Claim {
                channel: channel(output.channel),
                outpoint: outpoint(at),
                output: TxOut { value, script_pubkey: ScriptBuf::from_bytes(vec![0; 34]) },
                path: SpendPath::Single(Box::new(SingleSpend {
                    kind,
                    htlc: None,
                    script: Some(ScriptBuf::from_bytes(vec![0; output.role.script()])),
                    unlock,
                    key: SigningKey::Payment,
                    sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                    lock_time: LockTime::from_consensus(output.lock_time),
                    version: bitcoin::transaction::Version::TWO,
                })),
                open_at: height(output.open),
                deadline: output.deadline.map(|last| match output.role.is_penalty() {
                    true => Deadline::Penalty { by: height(last), second_stage: None },
                    false => Deadline::By(height(last)),
                }),
                value_at_risk: value,
                destination: ScriptBuf::from_bytes(vec![0; 22]),
            }
        });
        Self { claims: claims.collect(), acts: BTreeMap::new(), signature }
    }

    /// What one channel hands to the network at this tip.
    fn channel(&mut self, number: u32, claims: &[Claim], view: &View<'_>) -> Vec<Bid> {
        let acts = self.acts.entry(number).or_default();
        let contested = |at: &&usize| view.load.outputs[**at].channel == number;
        acts.contested = view.contested.iter().filter(contested).map(|at| outpoint(*at)).collect();
        for _ in 0..ROUNDS {
            let mut packages = Vec::new();
            let mut signed = false;
            for step in plan(claims, acts, height(view.tip), view.estimates) {
                match step {
                    Step::Publish(package) => packages.push(package),
                    Step::Sign(draft) => {
                        let Ok(unsigned) = draft.assemble(&[], None) else { continue };
                        let count = unsigned.requests().count();
                        let transaction = unsigned.signed(&vec![self.signature; count]);
                        let logged = unsigned.handed_out(&transaction, height(view.tip));
                        acts.handed_out.extend(logged.into_values());
                        signed = true;
                    }
                }
            }
            if !signed {
                let bids = packages
                    .iter()
                    .flat_map(|package| &package.transactions)
                    .filter_map(|transaction| bid(acts, transaction));
                return bids.collect();
            }
        }
        panic!("the plan has no end");
    }
}

impl Policy for Scheduler {
    fn bids(&mut self, view: &View<'_>) -> Vec<Bid> {
        let mut channels: BTreeMap<u32, Vec<Claim>> = BTreeMap::new();
        for at in view.open {
            let claim = self.claims[*at].clone();
            channels.entry(view.load.outputs[*at].channel).or_default().push(claim);
        }
        let each = channels.into_iter();
        each.flat_map(|(number, claims)| self.channel(number, &claims, view)).collect()
    }

    fn refused(&mut self, refused: &Bid, tip: usize) {
        let last = height(tip);
        for acts in self.acts.values_mut() {
            let known = acts.handed_out.iter().rev();
            let known = known.filter(|out| bid(acts, &out.transaction).as_ref() == Some(refused));
            let ids: Vec<Txid> = known.map(HandedOut::txid).take(1).collect();
            let rejections = Rejections { why: Refusal::Fee, last };
            acts.rejected.extend(ids.into_iter().map(|id| (id, rejections)));
        }
    }

    fn watches_mempool(&self) -> bool {
        true
    }
}

fn bid(acts: &Acts, transaction: &Transaction) -> Option<Bid> {
    let out = acts.ours(transaction.compute_txid())?;
    let input = |input: &bitcoin::TxIn| usize::try_from(input.previous_output.vout).ok();
    let mut inputs: Vec<usize> = transaction.input.iter().map(input).collect::<Option<_>>()?;
    inputs.sort_unstable();
    Some(Bid { inputs, weight: transaction.weight().to_wu(), fee: out.fee.to_sat() })
}

fn channel(number: u32) -> ChannelId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    ChannelId(id)
}

fn outpoint(at: usize) -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout: u32::try_from(at).unwrap_or(u32::MAX) }
}

fn height(at: usize) -> BlockHeight {
    BlockHeight(u32::try_from(at).unwrap_or(u32::MAX))
}
