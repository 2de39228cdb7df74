//! The jars of Apache Cassandra, and a Java that runs them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Stamp, empty, output_of};

/// The version of the jars.
pub(in super::super) const VERSION: &str = "5.0.6";
/// The version of Java whose options `cassandra/jvm.rs` lists. Cassandra 5.0 does not run on 18 or higher.
const JAVA: u32 = 17;
const INSTALL_JAVA: &str = "Java 17 (package `openjdk-17-jre-headless`)";
const INSTALL_MAVEN: &str = "Maven 3 (package `maven`)";
/// Folder of the Java versions that distributions install side by side.
const JAVAS: &str = "/usr/lib/jvm";

/// Apache Cassandra of version [`VERSION`].
#[derive(Debug)]
pub(in super::super) struct Cassandra {
    /// The program of Java 17.
    pub(in super::super) java: PathBuf,
    /// The folder with the jars.
    pub(in super::super) lib: PathBuf,
}

impl Cassandra {
    /// Finds Java, and downloads the jars to `folder` unless they are there.
    pub(super) fn prepare(folder: &Path) -> Result<Self> {
        let java = java()?;
        let pom = pom();
        let stamp = Stamp::new(folder, pom.clone());
        let lib = folder.join("lib");
        if !stamp.is_there() {
            println!("downloading Cassandra {VERSION}");
            empty(folder)?;
            fs::write(folder.join("pom.xml"), pom)?;
            let mut maven = Command::new("mvn");
            // A jar whose checksum does not match is an error.
            maven.args(["--batch-mode", "--quiet", "--strict-checksums", "dependency:copy-dependencies"]);
            output_of(
                maven.arg(format!("-DoutputDirectory={}", lib.display())).current_dir(folder),
                INSTALL_MAVEN,
            )
            .context("Cassandra cannot be downloaded")?;
            stamp.write()?;
        }
        Ok(Self { java, lib })
    }
}

fn pom() -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>madang</groupId><artifactId>services</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>{VERSION}</version></dependency>
  </dependencies>
</project>
"#
    )
}

/// The first Java 17 of `JAVA_HOME`, `PATH` and `/usr/lib/jvm`.
fn java() -> Result<PathBuf> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let entries = fs::read_dir(JAVAS).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let installed = entries.map(|path| path.join("bin/java"));
    let mut candidates = home.into_iter().chain([PathBuf::from("java")]).chain(installed);
    let found = candidates.find(|java| {
        let output = output_of(Command::new(java).arg("-version"), INSTALL_JAVA);
        output.is_ok_and(|output| major(&String::from_utf8_lossy(&output.stderr)) == Some(JAVA))
    });
    found.with_context(|| format!("`java` of version {JAVA} is missing: install {INSTALL_JAVA}"))
}

/// The major version in the output of `java -version`. Before 9 it was the second number.
fn major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let mut numbers = version.split(['.', '-', '+', '_']).map(str::parse::<u32>);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_java_are_read() {
        assert_eq!(major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(major("java version \"1.8.0_392\""), Some(8));
        assert_eq!(major("no java"), None);
    }

    #[test]
    fn the_pom_asks_for_our_version() {
        assert!(pom().contains("<artifactId>cassandra-all</artifactId><version>5.0.6</version>"));
    }
}
