//! The pure parts of the shop: what its services decide, and how a retail file becomes events.
#[path = "../workers/analytics/measure.rs"]
mod analytics;
#[path = "../workers/inventory/decide.rs"]
mod inventory;
#[path = "../workers/notification/mail.rs"]
mod notification;
#[path = "../workers/notification/outbox.rs"]
mod outbox;
