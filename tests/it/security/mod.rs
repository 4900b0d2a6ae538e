//! Who may see what, and who may do what.

mod arguments;
mod canary;
mod redact;
mod tls;
mod users;
