//! The market is the same each time, and nobody beats foresight.
use super::*;

#[test]
fn a_story_is_the_same_each_time_and_adds_up() {
    for weather in [Weather::Censorship, Weather::Cycling, Weather::Pinning] {
        let (once, again) = (play(weather, 1), play(weather, 1));
        assert_eq!(once.players, again.players, "{}", weather.name());
        for outcome in once.players {
            assert!(outcome.avoidable <= outcome.missed && outcome.missed <= outcome.outputs);
            assert!(
                outcome.weight > 0 && outcome.fees > 0,
                "{}: nothing was mined",
                weather.name()
            );
        }
    }
}

#[test]
fn nobody_pays_less_for_the_same_than_who_knows_the_future() {
    for seed in 1..=2 {
        for weather in [Weather::Calm, Weather::Spike] {
            let told = play(weather, seed);
            for (player, outcome) in Player::ALL.into_iter().zip(told.players) {
                let context = format!("{}, seed {seed}, {}", weather.name(), player.name());
                assert!(outcome.cost() >= told.optimum.cost(), "{context}");
            }
        }
    }
}
