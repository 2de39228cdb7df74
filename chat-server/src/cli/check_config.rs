//! `madang check-config`

use std::num::NonZero;
use std::path::Path;

use anyhow::Context;
use madang_auth::Passwords;
use madang_service::telemetry;

use crate::bounds;
use crate::tls::Tls;

pub(super) fn run(file: Option<&Path>) -> anyhow::Result<()> {
    let config = super::load(file)?;
    config.validate()?;
    config.check_files()?;
    Tls::open(&config.tls)?;
    Passwords::with_all_cores(config.passwords)?;
    telemetry::check(&config.telemetry)?;
    let text = toml::to_string_pretty(&config).context("the configuration cannot be written as TOML")?;
    say!("{text}");
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mib = bounds::sum(&bounds::of(&config, cores)).div_ceil(1024 * 1024);
    eprintln!("with every queue and cache full the server needs at most {mib} MiB of memory");
    eprintln!("the configuration is valid");
    Ok(())
}
