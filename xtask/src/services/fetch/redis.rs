//! The program of a Redis server.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::apt::Apt;
use super::{Stamp, output_of};

/// Names of the program, each with its package.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// The program of `redis-server` is in `redis-tools`, under another name.
const PACKAGES: [&str; 2] = ["redis-server", "redis-tools"];
/// What is in `root` of the folder; another value makes older downloads void.
const STAMP: &str = "redis-server of the distribution\n";
/// Libraries that are not in a package of their own name.
const OTHER_PACKAGES: [(&str, &str); 2] =
    [("liblua5.1-cjson.so.0", "lua-cjson"), ("liblua5.1-bitop.so.0", "lua-bitop")];
/// Libraries may need further libraries; more rounds than this are an error.
const ROUNDS: usize = 4;

/// A Redis server of version 7 or higher, or Valkey of version 8 or higher.
#[derive(Debug)]
pub(in super::super) struct Redis {
    pub(in super::super) program: PathBuf,
    /// Folders of libraries that the machine lacks.
    libraries: Vec<PathBuf>,
    pub(in super::super) version: Version,
}

/// What `redis-server --version` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Version {
    product: String,
    number: String,
}

impl Redis {
    /// Takes the machine's program if its version is high enough, otherwise one that was downloaded to `folder`.
    pub(super) fn prepare(folder: &Path) -> Result<Self> {
        for name in PROGRAMS {
            let found = Self::read(PathBuf::from(name), Vec::new());
            if let Some(redis) = found.ok().filter(|redis| redis.version.is_new_enough()) {
                return Ok(redis);
            }
        }
        let stamp = Stamp::new(folder, STAMP.to_owned());
        if !stamp.is_there() {
            println!("downloading Redis");
            download(folder)
                .context("PATH has neither Redis 7 nor Valkey 8 nor higher, and none can be downloaded")?;
            stamp.write()?;
        }
        Self::unpacked(&folder.join("root"))
    }

    /// Variables of the environment that the program needs.
    pub(in super::super) fn environment(&self) -> Option<(&'static str, OsString)> {
        if self.libraries.is_empty() {
            return None;
        }
        let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let paths = self.libraries.iter().cloned().chain(env::split_paths(&others));
        Some(("LD_LIBRARY_PATH", env::join_paths(paths).ok()?))
    }

    fn unpacked(root: &Path) -> Result<Self> {
        let redis = Self::read(root.join("usr/bin/redis-server"), library_folders(root)?)?;
        ensure!(redis.version.is_new_enough(), "the distribution has {} only", redis.version);
        Ok(redis)
    }

    fn read(program: PathBuf, libraries: Vec<PathBuf>) -> Result<Self> {
        let version = Version { product: String::new(), number: String::new() };
        let mut redis = Self { program, libraries, version };
        let mut command = Command::new(&redis.program);
        let output = output_of(command.arg("--version").envs(redis.environment()), "Redis 7 or Valkey 8")?;
        let text = String::from_utf8_lossy(&output.stdout);
        redis.version =
            Version::parse(&text).with_context(|| format!("this is no version of Redis: {text}"))?;
        Ok(redis)
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let product = text.split_whitespace().next()?.to_owned();
        let number = text.split_whitespace().find_map(|word| word.strip_prefix("v="))?.to_owned();
        Some(Self { product, number })
    }

    fn is_new_enough(&self) -> bool {
        let least = if self.product == "Valkey" { 8 } else { 7 };
        let major = self.number.split('.').next().and_then(|number| number.parse::<u32>().ok());
        major.is_some_and(|major| major >= least)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.product, self.number)
    }
}

fn download(folder: &Path) -> Result<()> {
    let mut apt = Apt::new(folder)?;
    apt.unpack(&PACKAGES.map(str::to_owned))?;
    for _ in 0..ROUNDS {
        let missing = missing_libraries(&apt.root())?;
        if missing.is_empty() {
            break;
        }
        let packages: Vec<String> = missing.iter().map(|library| package_of(library)).collect();
        apt.unpack(&packages)?;
    }
    let missing = missing_libraries(&apt.root())?;
    ensure!(missing.is_empty(), "no package has the libraries {}", missing.join(", "));
    Redis::unpacked(&apt.root())?;
    apt.clean()
}

/// Folders below `usr/lib` and `lib` with unpacked libraries, such as `usr/lib/x86_64-linux-gnu`.
fn library_folders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for lib in ["usr/lib", "lib"].map(|name| root.join(name)).into_iter().filter(|lib| lib.is_dir()) {
        for entry in fs::read_dir(lib)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with("-linux-gnu") {
                folders.push(path);
            }
        }
    }
    folders.sort();
    Ok(folders)
}

/// The libraries that neither the machine nor `root` has.
fn missing_libraries(root: &Path) -> Result<Vec<String>> {
    let mut ldd = Command::new("ldd");
    let path = env::join_paths(library_folders(root)?)?;
    ldd.arg(root.join("usr/bin/redis-server")).env("LD_LIBRARY_PATH", path);
    Ok(not_found(&String::from_utf8_lossy(&output_of(&mut ldd, "the package `libc-bin`")?.stdout)))
}

fn not_found(ldd: &str) -> Vec<String> {
    let libraries = ldd.lines().filter_map(|line| line.trim().strip_suffix(" => not found"));
    libraries.map(str::to_owned).collect()
}

/// The package of a library, by Debian's rule: name and version of the library, with a hyphen between two digits.
fn package_of(library: &str) -> String {
    if let Some((_, package)) = OTHER_PACKAGES.iter().find(|(other, _)| *other == library) {
        return (*package).to_owned();
    }
    let (name, version) = library.split_once(".so.").unwrap_or((library, ""));
    let hyphen = if name.ends_with(|c: char| c.is_ascii_digit()) { "-" } else { "" };
    format!("{name}{hyphen}{version}").to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_product() {
        let of = |text: &str| Version::parse(text).unwrap();
        let redis = of("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=d81b8ff7\n");
        assert_eq!(redis.to_string(), "Redis 7.0.15");
        assert!(redis.is_new_enough());
        assert!(of("Redis server v=10.1.0 sha=0").is_new_enough());
        assert!(!of("Redis server v=6.2.14 sha=0").is_new_enough());
        assert!(of("Valkey server v=8.1.1 sha=0").is_new_enough());
        assert!(!of("Valkey server v=7.2.5 sha=0").is_new_enough());
        assert_eq!(Version::parse("command not found"), None);
    }

    #[test]
    fn packages_of_missing_libraries_follow_from_their_names() {
        let ldd = "\tlinux-vdso.so.1 (0x0)\n\tliblzf.so.1 => not found\n\tlibm.so.6 => /lib/libm.so.6 (0x0)\n\
                   \tliblua5.1.so.0 => not found\n";
        let packages: Vec<String> = not_found(ldd).iter().map(|library| package_of(library)).collect();
        assert_eq!(packages, ["liblzf1", "liblua5.1-0"]);
        assert_eq!(package_of("libjemalloc.so.2"), "libjemalloc2");
        assert_eq!(package_of("liblua5.1-cjson.so.0"), "lua-cjson");
    }
}
