//! `madang check-config`

use std::path::Path;

use anyhow::Context;

use crate::tls::Tls;

pub(super) fn run(file: Option<&Path>) -> anyhow::Result<()> {
    let config = super::load(file)?;
    config.validate()?;
    Tls::open(&config.tls)?;
    let text = toml::to_string_pretty(&config).context("the configuration has no TOML form")?;
    println!("{text}");
    eprintln!("the configuration is valid");
    Ok(())
}
