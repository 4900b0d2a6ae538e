//! The operator's commands, through the real binary: a module per command.

mod bench;
mod check;
mod completions;
mod dead;
mod diff;
mod entity;
mod group;
mod outside;
mod pending;
mod publish;
mod redrive;
mod scheduled;
mod status;
