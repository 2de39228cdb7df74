//! `madang check-config`

use std::path::Path;

use anyhow::Context;
use madang_auth::Passwords;
use madang_service::telemetry;

use crate::tls::Tls;

pub(super) fn run(file: Option<&Path>) -> anyhow::Result<()> {
    let config = super::load(file)?;
    config.validate()?;
    config.check_files()?;
    Tls::open(&config.tls)?;
    Passwords::with_all_cores(config.passwords)?;
    telemetry::check(&config.telemetry)?;
    let text = toml::to_string_pretty(&config).context("the configuration has no TOML form")?;
    say!("{text}");
    eprintln!("the configuration is valid");
    Ok(())
}
