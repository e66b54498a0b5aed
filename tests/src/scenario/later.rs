//! What the language already has words for and the runner cannot yet do: refused by name.

use super::ast::{Channel, Format, Scenario};
use super::error::{ParseError, Wrong};

/// The first value of the file that belongs to later work.
pub fn unsupported(scenario: &Scenario) -> Option<ParseError> {
    let channels = scenario
        .channels
        .iter()
        .filter_map(|channel| channel_value(channel).map(|wrong| (channel.line, wrong)));
    let first = channels.min_by_key(|(line, _)| *line);
    first.map(|(line, wrong)| wrong.at(&scenario.file, line))
}

fn channel_value(channel: &Channel) -> Option<Wrong> {
    if let Some(node) = &channel.node {
        return Some(later("no node=", format!("node={node}")));
    }
    let name = match channel.format {
        Format::StaticRemotekey | Format::Anchors => return None,
        Format::ZeroFee => "zero_fee",
        Format::Taproot => "taproot",
    };
    Some(later("format=static_remotekey or format=anchors", format!("format={name}")))
}

fn later(expected: &str, found: String) -> Wrong {
    Wrong::new(expected, format!("{found}, which is not supported yet"))
}
