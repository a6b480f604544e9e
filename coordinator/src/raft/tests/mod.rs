//! Clusters over a network in memory, on real folders.

mod archive;
mod cluster;
mod crash;
mod damage;
mod differ;
mod effects;
mod golden;
mod levels;
mod members;
mod network;
mod recover;
mod seeded;
mod snapshot;
mod words;
