//! Bad input of every kind. What each row of docs/bad-input.md promises is tested here, or where
//! that table says.

mod door;
mod files;
mod handlers;
mod keys;
mod random;
mod table;
mod terminal;
