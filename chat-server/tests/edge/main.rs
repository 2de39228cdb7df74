//! What stands before every request: whose it is, whose pages may ask, its id.
#![expect(
    clippy::unwrap_used,
    reason = "a test; clippy sees that of test functions only, not of their helpers"
)]

mod ask;
mod crowded;
mod ids;
mod memory;
mod pages;
mod places;
mod proxies;
mod rfc;
