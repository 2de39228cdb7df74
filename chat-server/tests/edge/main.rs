//! Checks before every request: the address of the client, the origin of the page, the id of the request.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod ask;
mod crowded;
mod ids;
mod memory;
mod pages;
mod places;
mod proxies;
mod rfc;
