//! Configuration: defaults, then one TOML file, then environment variables. Every crate owns its own struct; this
//! module fills it and reports where a wrong value came from.
//!
//! `MADANG_GATEWAY__HEARTBEAT_MS=5000` sets the key `gateway.heartbeat_ms`. Structs have `#[serde(default,
//! deny_unknown_fields)]`, so that a misspelt key is an error and not ignored.

use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use figment::error::{Error, Kind};
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Prefix of environment variables that are configuration.
pub const ENV_PREFIX: &str = "MADANG_";

/// Variables with the prefix that are not configuration: the path of the file is not a key in it.
const NOT_KEYS: [&str; 1] = ["MADANG_CONFIG"];

/// Reasons for which the configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file was given and cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Some values are wrong. One line for each, with its key and its source.
    #[error("invalid configuration:{}", Lines(.0))]
    Wrong(Vec<String>),
}

struct Lines<'a>(&'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Fills `T` from its defaults, from `file` if given, and from the process's environment. For each key the later source
/// wins.
///
/// # Errors
/// [`ConfigError::Unreadable`] if the file cannot be read, [`ConfigError::Wrong`] for a syntax error, an unknown key or
/// a value of another type.
pub fn load<T>(file: Option<&Path>) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    load_from(
        file,
        env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))),
    )
}

/// Like [`load`], with the environment as a parameter.
///
/// # Errors
/// See [`load`].
pub fn load_from<T>(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut layers = Figment::from(Serialized::defaults(T::default()));
    if let Some(path) = file {
        check_readable(path)?;
        layers = layers.merge(Toml::file_exact(path));
    }
    for variable in env.into_iter().filter_map(Variable::new) {
        layers = layers.merge(variable);
    }
    layers
        .extract()
        .map_err(|error| ConfigError::Wrong(error.into_iter().map(|error| line(&error, &layers)).collect()))
}

fn check_readable(path: &Path) -> Result<(), ConfigError> {
    match fs::read_to_string(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
    }
}

/// One environment variable as a layer of its own, so that errors can name it.
struct Variable {
    name: String,
    key: String,
    value: String,
}

impl Variable {
    fn new((name, value): (String, String)) -> Option<Self> {
        let key = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase().replace("__", ".");
        let is_key = !key.is_empty() && !NOT_KEYS.contains(&name.as_str());
        is_key.then_some(Self { name, key, value })
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("the environment variable {}", self.name))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let Ok(value) = self.value.parse::<Value>();
        let nested = figment::util::nest(&self.key, value).into_dict();
        let nested = nested.ok_or_else(|| Error::from(format!("{} does not name a key", self.name)))?;
        Ok(Profile::Default.collect(nested))
    }
}

/// An error as one line: what is wrong, the key, and the source.
fn line(error: &Error, layers: &Figment) -> String {
    match &error.kind {
        Kind::UnknownField(name, known) => {
            let mut path = error.path.clone();
            if path.last() != Some(name) {
                path.push(name.clone());
            }
            let key = path.join(".");
            let from = layers.find_metadata(&key).or(error.metadata.as_ref()).map(origin);
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("unknown key `{key}`{}; known keys: {known}", from.unwrap_or_default())
        }
        kind if error.path.is_empty() => {
            format!("{kind}{}", error.metadata.as_ref().map_or(String::new(), origin))
        }
        kind => {
            let from = error.metadata.as_ref().map_or(String::new(), origin);
            format!("`{}`: {kind}{from}", error.path.join("."))
        }
    }
}

fn origin(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => format!(", from {}", path.display()),
        _ => format!(", from {}", metadata.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        listen: String,
        data: Option<PathBuf>,
        gateway: Gateway,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Gateway {
        ping_ms: u64,
        origins: Vec<String>,
    }

    impl Default for Gateway {
        fn default() -> Self {
            Self { ping_ms: 5_000, origins: Vec::new() }
        }
    }

    fn loaded(toml: &str, env: &[(&str, &str)]) -> Result<Whole, String> {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        fs::write(file.path(), toml).unwrap();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load_from(Some(file.path()), env)
            .map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
    }

    fn wrong(toml: &str, env: &[(&str, &str)]) -> String {
        let text = loaded(toml, env).unwrap_err();
        text.strip_prefix("invalid configuration:\n  ").unwrap().to_owned()
    }

    #[test]
    fn without_file_and_environment_the_defaults_hold() {
        assert_eq!(load_from::<Whole>(None, []).unwrap(), Whole::default());
    }

    #[test]
    fn the_later_layer_wins_key_by_key() {
        let toml = "listen = 'a'\n[gateway]\nping_ms = 1\norigins = ['x']";
        let whole =
            loaded(toml, &[("MADANG_GATEWAY__PING_MS", "2"), ("PATH", "/bin"), ("MADANG_DATA", "/srv")])
                .unwrap();
        assert_eq!((whole.listen.as_str(), whole.gateway.ping_ms), ("a", 2));
        assert_eq!(whole.gateway.origins, ["x"]);
        assert_eq!(whole.data, Some(PathBuf::from("/srv")));
    }

    #[test]
    fn lists_come_from_the_environment_in_brackets() {
        let whole = loaded("", &[("MADANG_GATEWAY__ORIGINS", "[a, \"b\"]")]).unwrap();
        assert_eq!(whole.gateway.origins, ["a", "b"]);
    }

    #[test]
    fn the_path_of_the_file_is_not_a_key() {
        assert!(loaded("", &[("MADANG_CONFIG", "/etc/madang.toml")]).is_ok());
    }

    #[test]
    fn an_unknown_key_of_the_file_is_named() {
        assert_eq!(
            wrong("[gateway]\nping = 1", &[]),
            "unknown key `gateway.ping`, from FILE; known keys: ping_ms, origins"
        );
        assert_eq!(
            wrong("lisen = 'a'", &[]),
            "unknown key `lisen`, from FILE; known keys: listen, data, gateway"
        );
    }

    #[test]
    fn an_unknown_key_of_the_environment_is_named() {
        assert_eq!(
            wrong("[gateway]\nping_ms = 1", &[("MADANG_GATEWAY__PING", "1")]),
            "unknown key `gateway.ping`, from the environment variable MADANG_GATEWAY__PING; known keys: ping_ms, origins"
        );
        assert!(
            wrong("", &[("MADANG_LISEN", "1")])
                .starts_with("unknown key `lisen`, from the environment variable")
        );
    }

    #[test]
    fn a_variable_that_names_no_key_is_an_error() {
        assert!(wrong("", &[("MADANG___X", "1")]).contains("MADANG___X does not name a key"));
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        assert_eq!(
            wrong("[gateway]\nping_ms = 'soon'", &[]),
            "`gateway.ping_ms`: invalid type: found string \"soon\", expected u64, from FILE"
        );
        assert_eq!(
            wrong("", &[("MADANG_GATEWAY__PING_MS", "soon")]),
            "`gateway.ping_ms`: invalid type: found string \"soon\", expected u64, from the environment variable \
             MADANG_GATEWAY__PING_MS"
        );
    }

    #[test]
    fn a_syntax_error_names_the_file() {
        let text = wrong("[gateway\n", &[]);
        assert!(text.contains("FILE") && text.contains("line 1"), "{text}");
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let error = load_from::<Whole>(Some(Path::new("/nonexistent/madang.toml")), []).unwrap_err();
        assert!(error.to_string().starts_with("cannot read the configuration /nonexistent/madang.toml: "));
    }
}
