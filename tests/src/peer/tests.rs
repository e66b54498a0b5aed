//! Tests of the peer.
