//! The laws of the decision core, over random histories of random channels.
mod cases;
mod chain;
mod checks;
mod garbage;
mod story;
mod world;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every law, after every step of every story.
    #[test]
    fn laws_hold_in_every_story(story in story::story(), ops in story::ops()) {
        let mut world = world::World::new(&story);
        let mut watch = checks::Watch::default();
        checks::all(&world, &mut watch)?;
        for op in ops {
            let mut broken = None;
            world.apply(op, &mut |world, mined| {
                let result = checks::block(world, mined);
                broken = broken.take().or(result.err());
            });
            if let Some(error) = broken {
                return Err(error);
            }
            checks::all(&world, &mut watch)?;
        }
    }
}
