//! The rules of push, without clocks, stores and networks.
//!
//! A [`Job`](madang_engine::alerts::Job) folds the messages of one channel for one user. When it is due, [`decide`] says whether an alert is worth it, and why
//! not. Each adapter maps the answer of its provider to one [`Verdict`]; [`after`] says what follows. [`Guard`] keeps a wrong key from
//! removing everybody's subscriptions. The breaker that keeps a provider that fails from holding up the others is
//! [`madang_engine::overload::Breaker`].

mod decision;
mod guard;
mod quiet;
mod verdict;
mod words;

pub use decision::{Alert, Candidate, Decision, Reason, Situation, decide};
pub use guard::Guard;
pub use quiet::{QuietError, QuietHours};
pub use verdict::{Answered, DeadReason, Next, Verdict, after};
pub use words::{Said, Words, words};

#[cfg(test)]
mod tests;
