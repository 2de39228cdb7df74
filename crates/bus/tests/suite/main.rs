//! The inbox of this crate against the suite, and the suite against planted faults.

mod conformance;
mod lag;
mod mutants;
mod store;
mod subjects;
