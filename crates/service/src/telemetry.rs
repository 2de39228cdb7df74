//! Logs: readable lines for people or JSON for a collector, always to stderr (stdout belongs to commands). In the
//! journal each line has its priority, so that `journalctl -p warning` finds it.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::{Deserialize, Serialize};
use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A readable line; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The default of what is logged. The driver of the store reports each change of a connection, which the store does itself.
const FILTER: &str = "info,scylla=error";

/// What is logged, and in which format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// `text` or `json`; default `text`.
    pub format: LogFormat,
    /// Directives like those of `RUST_LOG`, which takes precedence; default [`FILTER`].
    pub filter: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: FILTER.to_owned() }
    }
}

/// Reasons for which logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` or `filter` is not a list of directives.
    #[error("the log filter {text:?} is not valid: {source}")]
    Filter {
        /// The directives.
        text: String,
        /// What is wrong with them.
        source: ParseError,
    },
    /// No directive of the filter has a level, so nothing would be logged.
    #[error("the log filter {0:?} has no level: write one such as \"info\" or \"info,madang_store=debug\"")]
    Level(String),
    /// Logging was set up before.
    #[error("logging was already set up: {0}")]
    Twice(#[from] TryInitError),
}

/// Whether the filter of `config` is valid.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn check(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    filter(config, None).map(drop)
}

/// Sets up logging for the process. Called once, by `main`.
///
/// # Errors
/// [`TelemetryError::Filter`] for an invalid filter, [`TelemetryError::Twice`] on the second call.
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = filter(config, std::env::var("RUST_LOG").ok())?;
    if has_journal() {
        subscriber(config.format, filter, Journal(|| io::stderr().lock()), false).try_init()?;
    } else {
        subscriber(config.format, filter, io::stderr, io::stderr().is_terminal()).try_init()?;
    }
    Ok(())
}

/// Whether stderr is connected to the journal: `JOURNAL_STREAM` contains device and inode of the stream that systemd
/// opened (systemd.exec(5)).
#[must_use]
pub fn has_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let Ok(stderr) = rustix::fs::fstat(io::stderr()) else { return false };
    stream.is_some_and(|stream| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Prints on stderr why a command failed, with the priority of an error if stderr is the journal. Logging may not be
/// set up yet.
pub fn tell_failure(text: impl Display) {
    let priority = if has_journal() { "<3>" } else { "" };
    // If stderr cannot be written, there is nowhere to report it.
    let _ = writeln!(io::stderr(), "{priority}{text}");
}

/// Begins each line with its priority, in the form that the journal reads from a stream (sd-daemon(3)).
struct Journal<F>(F);

impl<W: Write, F: Fn() -> W> MakeWriter<'_> for Journal<F> {
    type Writer = W;

    fn make_writer(&self) -> W {
        (self.0)()
    }

    fn make_writer_for(&self, line: &Metadata<'_>) -> W {
        let priority = match *line.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut writer = self.make_writer();
        // If the line cannot be written, it is lost.
        let _ = write!(writer, "<{priority}>");
        writer
    }
}

/// A subscriber that writes log lines to `writer` without colours, for tests that read them. `RUST_LOG` is ignored.
///
/// # Errors
/// [`TelemetryError::Filter`] for an invalid filter.
pub fn lines_to<W>(config: &TelemetryConfig, writer: W) -> Result<Dispatch, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    Ok(subscriber(config.format, filter(config, None)?, writer, false))
}

/// A line has its own fields and those of the request or connection within which it was logged.
fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W, is_coloured: bool) -> Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(is_coloured);
    match format {
        LogFormat::Text => lines.finish().into(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).finish().into(),
    }
}

fn filter(config: &TelemetryConfig, rust_log: Option<String>) -> Result<EnvFilter, TelemetryError> {
    let text = rust_log.filter(|text| !text.is_empty()).unwrap_or_else(|| config.filter.clone());
    let has_level = |directive: &str| directive.contains('=') || directive.parse::<LevelFilter>().is_ok();
    // An empty text counts as a level too.
    if !text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).any(has_level) {
        return Err(TelemetryError::Level(text));
    }
    EnvFilter::try_new(&text).map_err(|source| TelemetryError::Filter { text, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_wins_over_the_configuration() {
        let config = TelemetryConfig::default();
        let default = filter(&config, None).unwrap().to_string();
        assert!(default.contains("info") && default.contains("scylla=error"), "{default}");
        assert_eq!(filter(&config, Some(String::new())).unwrap().to_string(), default);
        assert_eq!(filter(&config, Some("warn".into())).unwrap().to_string(), "warn");
    }

    #[test]
    fn a_line_for_the_journal_has_its_priority() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let file = std::path::PathBuf::from(&*path);
        let journal = Journal(move || std::fs::File::options().append(true).open(&file).unwrap());
        let lines = lines_to(&TelemetryConfig::default(), journal).unwrap();
        tracing::dispatcher::with_default(&lines, || {
            tracing::error!("an error");
            tracing::warn!("a warning");
            tracing::info!("a note");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let priorities: Vec<&str> = text.lines().map(|line| line.split_at(3).0).collect();
        assert_eq!(priorities, ["<3>", "<4>", "<6>"], "{text}");
    }

    #[test]
    fn an_invalid_filter_is_named() {
        let error = filter(&TelemetryConfig::default(), Some("a=b=c".into())).unwrap_err();
        assert!(error.to_string().contains("a=b=c"));
    }
}
