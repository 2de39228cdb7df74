//! The stores of this crate against the suite, the suite against planted faults, and properties.

mod conformance;
mod mutants;
mod properties;
mod subjects;
