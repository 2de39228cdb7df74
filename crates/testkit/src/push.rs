//! Push services for a test: the sandbox, on the clock of the test, and a configuration that uses it.

use madang_chat_server::config::Config;
use madang_push_sandbox::{Now, Sandbox, Settings};
use madang_service::Clock;
use serde_json::Value;
use tempfile::TempDir;

/// Push services, with the keys and certificates that an operator would have.
pub struct PushServices {
    /// The services.
    pub sandbox: Sandbox,
    /// Where the keys are.
    pub folder: TempDir,
}

impl PushServices {
    /// Starts the services, and names them in the configuration.
    ///
    /// # Errors
    /// A port or a file cannot be opened.
    pub async fn start(config: &mut Config, clock: Clock) -> anyhow::Result<Self> {
        let now = Now::from_fn(move || clock.now_ms().get());
        let sandbox = Sandbox::start(Settings { now, ..Settings::default() }).await?;
        let folder = tempfile::tempdir()?;
        sandbox.write_files(folder.path())?;
        let table: toml::Table = sandbox.config_text(folder.path()).parse()?;
        let mut push = serde_json::to_value(&config.push)?;
        merge(&mut push, &serde_json::to_value(&table["push"])?);
        config.push = serde_json::from_value(push)?;
        // The server makes the key for browsers there.
        config.server.data = folder.path().to_owned();
        Ok(Self { sandbox, folder })
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into.as_object_mut(), from.as_object()) {
        (Some(into), Some(from)) => {
            let into_each = |(name, value): (&String, &Value)| {
                merge(into.entry(name.clone()).or_insert(Value::Null), value)
            };
            from.iter().for_each(into_each);
        }
        _ => *into = from.clone(),
    }
}
