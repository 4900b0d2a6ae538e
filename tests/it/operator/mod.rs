//! The operator's commands, through the real binary: a module per command.

mod bench;
mod capacity;
mod check;
mod completions;
mod config;
mod dead;
mod diff;
mod doctor;
mod entity;
mod group;
mod outside;
mod pending;
mod publish;
mod redrive;
mod scheduled;
mod status;
mod tap;
