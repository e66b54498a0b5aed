//! `claims`: ten thousand claims of closed channels are planned for a block, against reading them
//! once; before and after their transactions were handed out.
use arb_core::claim::trough::Troughs;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arb_core::arbitrator::{ChannelArbitrator, Input, Position};
use arb_core::claim::{Claim, plan};
use arb_core::engine::{Active, ChainArbitrator, EngineInput, Loaded, Task, Transition};
use arb_core::ids::Slot;
use arb_core::log::Durable;
use arb_core::policy::Policy;
use arb_core::ports::FeeEstimates;
use bitcoin::secp256k1::ecdsa;
use bitcoin::{FeeRate, Transaction};
use indicatif::ProgressBar;

use super::BenchError;
use super::channels::{self, TIP, block_ref};
use super::measure::{interleaved, timed};
use super::report::Row;
use super::synthetic::Random;
use super::told::Revoked;

const SEED: u64 = 31;
const PAIRS: usize = 31;
const CLAIMS: usize = 10_000;
const HTLCS: usize = 5;
/// Of a revoked commitment: its HTLCs and both balances.
const CLAIMS_OF_CHANNEL: usize = HTLCS + 2;
const SATOSHIS: u64 = 20_000;

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    progress.set_message("claims: channels");
    let mut closed = Closed::new(CLAIMS.div_ceil(CLAIMS_OF_CHANNEL))?;
    let mut rows = Vec::new();
    for what in ["new claims", "claims handed out"] {
        progress.set_message(format!("claims: {what}"));
        let count = closed.claims().iter().map(|(_, claims)| claims.len()).sum::<usize>();
        let read = &mut || Ok(closed.read());
        let planned = interleaved(PAIRS, &mut || Ok(closed.plan()), read)?;
        let name = format!("claims: planning {count} {what} / reading them once");
        rows.push(Row::of(name, planned, None));
        let whole = interleaved(PAIRS, &mut || Ok(closed.tasks()), &mut || Ok(closed.plan()))?;
        let name = format!("claims: deriving and planning {count} {what} / planning them");
        rows.push(Row::of(name, whole, None));
        if what == "new claims" {
            closed.hand_out()?;
        }
    }
    Ok(rows)
}

/// Channels whose revoked commitments are confirmed.
struct Closed {
    engine: ChainArbitrator,
}

impl Closed {
    fn new(count: usize) -> Result<Self, BenchError> {
        let mut model = Revoked::with_htlcs(HTLCS, SATOSHIS)?;
        let mut random = Random::new("claims", SEED);
        let mut closed = Self { engine: channels::engine() };
        let rate = FeeRate::from_sat_per_vb_u32;
        let targets = vec![(1, rate(10)), (144, rate(2))];
        closed.engine.set_estimates(FeeEstimates {
            targets,
            floor: rate(1),
            troughs: Troughs::default(),
        });
        let (mut touched, mut loaded, mut penalties) = (BTreeMap::new(), Loaded::new(), Vec::new());
        for slot in (0..count as u32).map(Slot) {
            let told = model.at(random.outpoint())?;
            let facts = Arc::new(told.facts);
            closed.engine.restore(slot, facts.clone(), ChannelArbitrator::default());
            loaded.insert(slot, facts);
            touched.insert(slot, vec![told.close]);
            let (number, htlcs) = (model.number(), told.ended);
            penalties.push((slot, Input::RevokedHtlcsLoaded { number, htlcs }));
        }
        let (at, position) = (block_ref(TIP + 1), Position::AtTip);
        closed.step(&[EngineInput::Block { at, touched, position }], &loaded)?;
        closed.inputs(penalties)?;
        Ok(closed)
    }

    fn step(&mut self, inputs: &[EngineInput], loaded: &Loaded) -> Result<(), BenchError> {
        let staged: Result<Transition, _> = self.engine.stage(inputs, loaded, &mut |_| ());
        let staged = staged.map_err(|_| BenchError::Engine("facts are missing".to_owned()))?;
        let receipt = Durable::assert_durable(staged.id());
        let committed = self.engine.commit(staged, receipt);
        committed.map(drop).map_err(|error| BenchError::Engine(error.to_string()))
    }

    fn inputs(&mut self, inputs: Vec<(Slot, Input)>) -> Result<(), BenchError> {
        let of = |(slot, input)| EngineInput::Channel { slot, input: Box::new(input) };
        let inputs: Vec<EngineInput> = inputs.into_iter().map(of).collect();
        self.step(&inputs, &Loaded::new())
    }

    fn slots(&self) -> Vec<Slot> {
        self.engine.actives().map(|(slot, _)| slot).collect()
    }

    /// Everything that is to be signed is signed, by a signature of no meaning, and handed out; and
    /// another block comes.
    fn hand_out(&mut self) -> Result<(), BenchError> {
        let failed = |what: String| BenchError::Engine(what);
        let signature = ecdsa::Signature::from_compact(&[1; 64]);
        let signature = signature.map_err(|error| failed(error.to_string()))?;
        let mut signed = Vec::new();
        for slot in self.slots() {
            for task in self.engine.tasks(slot).into_values() {
                let Task::Sign(draft) = task else { continue };
                let unsigned = draft.assemble(&[], None);
                let unsigned = unsigned.map_err(|error| failed(error.to_string()))?;
                let signatures = vec![signature; unsigned.requests().count()];
                let transaction: Transaction = unsigned.signed(&signatures);
                let out = unsigned.handed_out(&transaction, self.engine.height());
                let own = out.into_values().map(|out| (slot, Input::Signed(Box::new(out))));
                signed.extend(own);
            }
        }
        self.inputs(signed)?;
        let (at, touched, position) = (block_ref(TIP + 2), BTreeMap::new(), Position::AtTip);
        self.step(&[EngineInput::Block { at, touched, position }], &Loaded::new())
    }

    /// The claims of each channel.
    fn claims(&self) -> Vec<(&Active, Vec<Claim>)> {
        let claims = |active: &Active| {
            let picture = active.picture.as_ref()?;
            Some(active.state.claims(&active.facts, picture, &Policy::default()))
        };
        let all = self.engine.actives();
        all.map(|(_, active)| (active, claims(active).unwrap_or_default())).collect()
    }

    /// Looks at every claim: what it is worth, and the first deadline.
    fn read(&self) -> Duration {
        let all = self.claims();
        let read = || {
            let claims = all.iter().flat_map(|(_, claims)| claims);
            claims.fold((0, u32::MAX), |(value, first), claim| {
                let deadline = claim.due().map_or(u32::MAX, |height| height.0);
                (value + claim.output.value.to_sat(), first.min(deadline))
            })
        };
        timed(read).0
    }

    /// Plans every channel's claims.
    fn plan(&self) -> Duration {
        let all = self.claims();
        let (tip, estimates) = (self.engine.height(), self.engine.estimates());
        let plan = |(active, claims): &(&Active, Vec<Claim>)| {
            black_box(plan::plan(claims, active.state.acts(), tip, estimates)).len()
        };
        timed(|| all.iter().map(plan).sum::<usize>()).0
    }

    /// All that is asked of the engine for a block.
    fn tasks(&self) -> Duration {
        let slots = self.slots();
        timed(|| slots.iter().map(|slot| black_box(self.engine.tasks(*slot)).len()).sum::<usize>())
            .0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arb_core::claim::plan::Step;

    fn steps(closed: &Closed) -> Vec<Step> {
        let (tip, estimates) = (closed.engine.height(), closed.engine.estimates());
        let all = closed.claims();
        all.iter().flat_map(|(a, c)| plan::plan(c, a.state.acts(), tip, estimates)).collect()
    }

    #[test]
    fn every_claim_is_planned_and_then_handed_out() -> Result<(), BenchError> {
        let mut closed = Closed::new(3)?;
        let claims: Vec<usize> = closed.claims().iter().map(|(_, claims)| claims.len()).collect();
        assert_eq!(claims, [CLAIMS_OF_CHANNEL; 3]);
        let planned = steps(&closed);
        let signs = |step: &Step| match step {
            Step::Sign(draft) => draft.claims().count(),
            Step::Publish(_) => 0,
        };
        assert_eq!(planned.iter().map(signs).sum::<usize>(), 3 * CLAIMS_OF_CHANNEL);
        closed.hand_out()?;
        for (active, claims) in closed.claims() {
            let out = |claim: &Claim| active.state.acts().claims_of(claim.outpoint).count();
            assert_eq!(claims.iter().map(out).collect::<Vec<_>>(), [1; CLAIMS_OF_CHANNEL]);
        }
        assert!(steps(&closed).iter().any(|step| matches!(step, Step::Publish(_))));
        Ok(())
    }
}
