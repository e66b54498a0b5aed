//! LDK interfaces for arb-core.
#![warn(missing_docs)]
