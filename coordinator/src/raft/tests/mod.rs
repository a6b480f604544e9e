//! Clusters over a network in memory, on real folders.

mod cluster;
