//! Clusters over a network in memory, on real folders.

mod cluster;
mod crash;
mod damage;
mod effects;
mod golden;
mod members;
mod network;
mod seeded;
