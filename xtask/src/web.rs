//! `cargo xtask web`: builds the pages of `web/`, which the server embeds. And their checks.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::cargo::for_all;
use crate::steps::call;

/// The oldest Node that the tools run on.
const NODE: (u32, u32) = (20, 19);
const CHROMIUM: &str = "/usr/bin/chromium";

/// Builds the pages.
pub(crate) fn run() -> Result<ExitCode> {
    install()?;
    npm(&["run", "build"])?;
    println!("built web/dist; the next build of the server embeds it");
    Ok(ExitCode::SUCCESS)
}

/// Everything about the pages that needs no browser, and builds them.
pub(crate) fn check() -> Result<()> {
    install()?;
    for script in ["format:check", "check", "test", "build", "budget"] {
        npm(&["run", "--silent", script])?;
    }
    Ok(())
}

/// The pages in a real browser: against the stand-in for a server, and against a server with a hot channel.
pub(crate) fn in_browser(target_directory: &Path) -> Result<()> {
    let chromium = chromium()?;
    call(for_all("build").arg("--bins"))?;
    let program = std::path::absolute(target_directory.join("debug/madang"))?;
    let run = |script: &str| {
        let mut command = command("npm", &["run", "--silent", script]);
        call(command.env("CHROMIUM", &chromium).env("MADANG", &program))
    };
    run("browser:mock")?;
    run("browser:real")
}

/// Installs what the lock file names, and runs no script of a package.
fn install() -> Result<()> {
    let said = Command::new("node").arg("--version").output();
    let said =
        said.context("Node 20.19 or later is needed for web/; install it, such as the package nodejs")?;
    let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let found = parse(&version).with_context(|| format!("node --version says {version:?}"))?;
    ensure!(found >= NODE, "Node {version} is too old for web/: 20.19 or later is needed");
    npm(&["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"])
}

fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix('v')?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn npm(args: &[&str]) -> Result<()> {
    call(&mut command("npm", args))
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir("web");
    command
}

/// A Chromium; one that is missing is installed where that is possible.
fn chromium() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Ok(named.into());
    }
    let path = PathBuf::from(CHROMIUM);
    if !path.exists() {
        println!("installing Chromium with apt-get");
        let apt = |args: &[&str]| {
            let mut command = Command::new("apt-get");
            command.arg("-qq").args(args).env("DEBIAN_FRONTEND", "noninteractive");
            call(&mut command)
        };
        let install = || apt(&["install", "-y", "--no-install-recommends", "chromium"]);
        let installed = install().or_else(|_| apt(&["update"]).and_then(|()| install()));
        installed.context("Chromium cannot be installed here; name one in CHROMIUM")?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node_are_read() {
        assert_eq!(parse("v20.19.2"), Some((20, 19)));
        assert_eq!(parse("v22.1.0").map(|found| found >= NODE), Some(true));
        assert_eq!(parse("v18.20.4").map(|found| found >= NODE), Some(false));
        assert_eq!(parse("20"), None);
    }
}
