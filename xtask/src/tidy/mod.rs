//! `cargo xtask tidy`: rules of this project that other tools do not check. Each check reads the tree and writes
//! nothing.

mod arrows;
mod deploy;
mod links;
mod names;
mod passages;
mod prose;
mod registries;
mod sources;
mod tree;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::cargo::root;
use tree::{Tree, Violation};

/// The checks, in the order of their output.
const CHECKS: [fn(&Tree) -> Vec<Violation>; 11] = [
    arrows::check_order,
    arrows::check_drivers,
    names::check,
    sources::check_length,
    sources::check_sleeps,
    sources::check_docs,
    sources::check_marks,
    registries::check,
    links::check,
    deploy::check,
    prose::check,
];

/// Checks the tree; the exit code says whether it is tidy.
pub(crate) fn run() -> Result<ExitCode> {
    check()?;
    Ok(ExitCode::SUCCESS)
}

/// Checks the tree.
pub(crate) fn check() -> Result<()> {
    let tree = Tree::read(&root())?;
    let violations: Vec<Violation> = CHECKS.iter().flat_map(|check| check(&tree)).collect();
    for violation in &violations {
        println!("{violation}");
    }
    if !violations.is_empty() {
        bail!("{} violations in {} files", violations.len(), tree.files().count());
    }
    println!("{} files are tidy", tree.files().count());
    Ok(())
}
