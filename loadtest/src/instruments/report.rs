//! Writes what a run has found.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Writes a report as JSON, and its plots beside it as SVG.
pub(crate) fn write_report(path: &Path, report: &impl Serialize, drawn: String) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    let plots = path.with_extension("svg");
    for (path, text) in [(path, json), (&plots, drawn)] {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("report: {}, plots: {}", path.display(), plots.display());
    Ok(())
}
