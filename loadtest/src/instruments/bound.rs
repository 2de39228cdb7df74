//! A bound of a run, as it is printed.

use serde::Serialize;

use crate::bench::figures::{figure, verdict};

/// What a run demands, and what it measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Bound {
    pub(crate) what: String,
    /// `None`: the figure is not known, or the bound is not demanded in this run.
    pub(crate) met: Option<bool>,
    pub(crate) figure: String,
}

impl Bound {
    /// Something that must not happen at all.
    pub(crate) fn none(what: &str, count: u64) -> Self {
        Self { what: format!("no {what}"), met: Some(count == 0), figure: format!("{:.0}", figure(count)) }
    }

    pub(crate) fn line(&self) -> String {
        let met = self.met.map_or("not judged", verdict);
        format!("target: {}: {met} ({})", self.what, self.figure)
    }
}

/// Whether no bound was missed.
pub(crate) fn all_met(bounds: &[Bound]) -> bool {
    bounds.iter().all(|bound| bound.met != Some(false))
}
