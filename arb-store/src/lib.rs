//! LMDB change log and facts store for arb-core.
#![warn(missing_docs)]
