//! What the language already has words for and the runner cannot do: refused by name.

use super::ast::{Channel, Format, LDK, Scenario};
use super::error::{ParseError, Wrong};
use super::ldk;

/// The first value of the file that belongs to later work, or that its nodes cannot do.
pub fn unsupported(scenario: &Scenario) -> Option<ParseError> {
    let channels = scenario
        .channels
        .iter()
        .filter_map(|channel| channel_value(channel).map(|wrong| (channel.line, wrong)));
    let first = channels.min_by_key(|(line, _)| *line);
    let first = first.or_else(|| ldk::cannot(scenario));
    first.map(|(line, wrong)| wrong.at(&scenario.file, line))
}

fn channel_value(channel: &Channel) -> Option<Wrong> {
    if let Some(node) = channel.node.as_deref().filter(|node| *node != LDK) {
        return Some(later("node=ldk or no node=", format!("node={node}")));
    }
    match channel.format {
        Format::StaticRemotekey | Format::Anchors | Format::ZeroFee => None,
        Format::Taproot => {
            let built = "format=static_remotekey, format=anchors or format=zero_fee";
            Some(later(built, "format=taproot".to_owned()))
        }
    }
}

fn later(expected: &str, found: String) -> Wrong {
    Wrong::new(expected, format!("{found}, which is not supported yet"))
}
