//! The pure parts of the services and of the sandbox gateway, which are tested beside their code.

#![allow(dead_code, reason = "the programs use the rest")]

#[path = "../../../workers/user/account.rs"]
mod account;
#[path = "../../../workers/payment/answers.rs"]
mod answers;
#[path = "../../../examples/sandbox_gateway/book.rs"]
mod book;
#[path = "../../../workers/payment/decide.rs"]
mod decide;
#[path = "../../../workers/payment/gateway.rs"]
mod gateway;
#[path = "../../../workers/search/index.rs"]
mod index;
#[path = "../../../examples/sandbox_gateway/journal.rs"]
mod journal;
#[path = "../../../workers/shared/latest.rs"]
mod latest;
#[path = "../../../workers/cache/page.rs"]
mod page;
#[path = "../../../workers/shared/product.rs"]
mod product;
#[path = "../../../examples/sandbox_gateway/rules.rs"]
mod rules;
#[path = "../../../workers/notification/smtp.rs"]
mod smtp;
#[path = "../../../workers/recommendation/together.rs"]
mod together;
