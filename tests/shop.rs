//! The pure parts of the shop: what its services decide, and how a retail file becomes events.
#[path = "../workers/inventory/decide.rs"]
mod inventory;
