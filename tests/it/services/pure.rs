//! The pure parts of the read models, with the tests that stand in them.

#[path = "../../../workers/user/account.rs"]
mod account;
#[path = "../../../workers/search/index.rs"]
mod index;
#[path = "../../../workers/shared/latest.rs"]
mod latest;
#[path = "../../../workers/cache/page.rs"]
mod page;
#[path = "../../../workers/shared/product.rs"]
mod product;
#[path = "../../../workers/recommendation/together.rs"]
mod together;
