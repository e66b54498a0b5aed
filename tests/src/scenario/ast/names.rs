//! Names that a scenario gives to channels, HTLCs, hashes, outputs and subscribers.

use core::fmt;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A channel's name.
    ChannelName
);
name!(
    /// A payment hash's name, which stands for one preimage. Two HTLCs that carry equal hash
    /// names share the preimage.
    HashName
);
name!(
    /// A subscriber's name.
    SubscriberName
);

/// `a.h1`: HTLC `h1` of channel `a`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HtlcRef {
    pub channel: ChannelName,
    pub htlc: String,
}

impl fmt::Display for HtlcRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.channel, self.htlc)
    }
}

/// An output of a commitment transaction, or of an HTLC's second stage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputRef {
    /// `a.h1`
    Htlc(HtlcRef),
    /// `a.h1.second`
    SecondStage(HtlcRef),
    /// `a.to_local`, seen from the commitment's owner.
    ToLocal(ChannelName),
    /// `a.to_remote`, seen from the commitment's owner.
    ToRemote(ChannelName),
    /// `a.anchor`, ours.
    Anchor(ChannelName),
}

impl OutputRef {
    /// The channel that the output belongs to.
    pub fn channel(&self) -> &ChannelName {
        match self {
            Self::Htlc(htlc) | Self::SecondStage(htlc) => &htlc.channel,
            Self::ToLocal(channel) | Self::ToRemote(channel) | Self::Anchor(channel) => channel,
        }
    }
}

impl fmt::Display for OutputRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Htlc(htlc) => write!(f, "{htlc}"),
            Self::SecondStage(htlc) => write!(f, "{htlc}.second"),
            Self::ToLocal(channel) => write!(f, "{channel}.to_local"),
            Self::ToRemote(channel) => write!(f, "{channel}.to_remote"),
            Self::Anchor(channel) => write!(f, "{channel}.anchor"),
        }
    }
}
