//! Parts that the runs [`crate::hot`] and [`crate::overload`] share: [`http`] makes calls, [`usage`] measures processes, [`history`]
//! compares acked messages with the store, [`bound`] prints what a run demands, [`plot`] draws it over time with [`svg`],
//! and [`report`] writes both.

pub(crate) mod bound;
pub(crate) mod history;
pub(crate) mod http;
pub(crate) mod plot;
pub(crate) mod report;
mod svg;
pub(crate) mod usage;
