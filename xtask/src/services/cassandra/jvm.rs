//! The arguments of the Java virtual machine.

use std::path::Path;

/// Packages of the Java platform that Cassandra 5.0 calls (its own `conf/jvm17-server.options`).
const EXPORTS: [&str; 13] = [
    "java.base/jdk.internal.misc",
    "java.base/java.lang.ref",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/java.lang.reflect",
    "java.base/jdk.internal.perf",
    "java.base/jdk.internal.util",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
];
/// Packages that it reads by reflection.
const OPENS: [&str; 19] = [
    "java.base/java.lang.module",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.lang",
    "java.base/java.math",
    "java.base/java.lang.reflect",
    "java.base/java.net",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.management/com.sun.jmx.mbeanserver",
    "jdk.management/com.sun.management.internal",
];
const MAIN: &str = "org.apache.cassandra.service.CassandraDaemon";

/// The arguments of `java` for a node in `folder`, whose cluster has `nodes` nodes. A node takes about 0.75 GB.
pub(super) fn arguments(folder: &Path, lib: &Path, nodes: usize) -> Vec<String> {
    let (folder, lib) = (folder.display(), lib.display());
    // How long a node waits for news of the ring before it trusts its own view.
    let ring_delay_ms = if nodes > 1 { 1000 } else { 100 };
    let mut arguments = vec![
        "-Xmx384m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        // A node that ran out of memory must not answer some requests and lose others.
        "-XX:+ExitOnOutOfMemoryError".to_owned(),
        "-Djdk.attach.allowAttachSelf=true".to_owned(),
    ];
    arguments.extend(EXPORTS.iter().map(|package| format!("--add-exports={package}=ALL-UNNAMED")));
    arguments.extend(OPENS.iter().map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
    let mut properties = vec![
        format!("cassandra.config=file://{folder}/cassandra.yaml").replace(' ', "%20"),
        format!("cassandra.storagedir={folder}"),
        format!("logback.configurationFile={folder}/logback.xml"),
        "cassandra-foreground=yes".to_owned(),
        "cassandra.skip_wait_for_gossip_to_settle=0".to_owned(),
        format!("cassandra.ring_delay_ms={ring_delay_ms}"),
        "cassandra.superuser_setup_delay_ms=0".to_owned(),
        "java.net.preferIPv4Stack=true".to_owned(),
    ];
    if nodes > 1 {
        // The tokens are given and there are no data: nothing is to be copied from the other nodes.
        properties.push("cassandra.auto_bootstrap=false".to_owned());
    }
    arguments.extend(properties.iter().map(|property| format!("-D{property}")));
    arguments.extend(["-cp".to_owned(), format!("{lib}/*"), MAIN.to_owned()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_several_does_not_bootstrap() {
        let arguments_for = |nodes| arguments(Path::new("/a b"), Path::new("/lib"), nodes);
        let (one, three) = (arguments_for(1), arguments_for(3));
        assert!(one.contains(&"-Dcassandra.config=file:///a%20b/cassandra.yaml".to_owned()));
        assert!(one.contains(&"-Dcassandra.ring_delay_ms=100".to_owned()));
        assert!(!one.iter().any(|argument| argument.contains("auto_bootstrap")));
        assert!(three.contains(&"-Dcassandra.auto_bootstrap=false".to_owned()));
        assert_eq!(three[three.len() - 3..], ["-cp", "/lib/*", MAIN]);
    }
}
