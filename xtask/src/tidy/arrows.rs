//! Dependencies between crates go down only, and each driver is used by one crate only.

use toml::Table;

use super::tree::{Tree, Violation};

/// The crates from top to bottom. A crate may depend on those of lower rows, but not on those of its own row.
const ORDER: [&[&str]; 8] = [
    &["madang-fuzz", "madang-loadtest", "madang-testkit"],
    &["madang-chat-server"],
    &["madang-presence", "madang-push", "madang-discovery"],
    &["madang-bus"],
    &["madang-store", "madang-auth", "madang-client", "madang-service"],
    // Below the stores, which use its types for logs, seats and spans: docs/decisions/0001-nouns-in-engine.md.
    &["madang-engine"],
    &["madang-proto"],
    &["madang-ids", "madang-push-sandbox"],
];

/// Outside the order: it builds the other crates and depends on none of them.
const BESIDE: &str = "xtask";

/// May be a dev-dependency of any crate.
const TESTKIT: &str = "madang-testkit";

/// A dependency that is allowed against the order, and the reason.
struct Exception {
    from: &'static str,
    to: &'static str,
    reason: &'static str,
}

/// Dependencies that are allowed against the order. An entry that is not needed is a violation itself.
const EXCEPTIONS: [Exception; 0] = [];

/// External crates that only one of our crates may use.
const DRIVERS: [(&str, &str); 3] =
    [("rusqlite", "madang-store"), ("scylla", "madang-store"), ("redis", "madang-bus")];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Normal,
    Dev,
}

struct Arrow {
    from: String,
    to: String,
    section: Section,
    path: String,
    line: usize,
}

/// Every dependency between crates of the project goes down.
pub(super) fn check_order(tree: &Tree) -> Vec<Violation> {
    check_with(tree, &EXCEPTIONS)
}

fn check_with(tree: &Tree, exceptions: &[Exception]) -> Vec<Violation> {
    let (arrows, mut violations) = read(tree);
    let wrong: Vec<(&Arrow, String)> =
        arrows.iter().filter_map(|arrow| Some((arrow, problem(arrow)?))).collect();
    for (arrow, problem) in &wrong {
        if !exceptions.iter().any(|exception| exception.covers(arrow)) {
            violations.push(Violation::new(&arrow.path, arrow.line, problem));
        }
    }
    for exception in exceptions {
        if !wrong.iter().any(|(arrow, _)| exception.covers(arrow)) {
            let message = format!(
                "exception {} → {} ({}) is not needed",
                exception.from, exception.to, exception.reason
            );
            violations.push(Violation::new("xtask/src/tidy/arrows.rs", 0, message));
        }
    }
    violations
}

impl Exception {
    fn covers(&self, arrow: &Arrow) -> bool {
        self.from == arrow.from && self.to == arrow.to
    }
}

fn problem(arrow: &Arrow) -> Option<String> {
    let Arrow { from, to, section, .. } = arrow;
    let ours = to.starts_with("madang-");
    if !ours || (*section == Section::Dev && (to == TESTKIT || to == from)) {
        return None;
    }
    if from == BESIDE {
        return Some(format!("{BESIDE} depends on no other crate of the project, not on {to}"));
    }
    match (row(from), row(to)) {
        (None, _) => Some(format!("{from} has no place in the order of crates; give it one in `ORDER`")),
        (_, None) => Some(format!("{to} has no place in the order of crates; give it one in `ORDER`")),
        (Some(from_row), Some(to_row)) if from_row < to_row => None,
        (Some(from_row), Some(to_row)) => {
            let place = if from_row == to_row { "is in the same row" } else { "is in a row above" };
            Some(format!("{from} may not depend on {to}, which {place}: arrows go down only"))
        }
    }
}

fn row(package: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&package))
}

/// Only the owner of a driver depends on it, in tests too.
pub(super) fn check_drivers(tree: &Tree) -> Vec<Violation> {
    let (arrows, _) = read(tree);
    let owner =
        |arrow: &Arrow| DRIVERS.iter().find(|(driver, _)| *driver == arrow.to).map(|(_, owner)| *owner);
    let wrong =
        arrows.iter().filter_map(|arrow| Some((arrow, owner(arrow).filter(|owner| *owner != arrow.from)?)));
    wrong
        .map(|(arrow, owner)| {
            let message = format!("only {owner} may depend on {}, not {}", arrow.to, arrow.from);
            Violation::new(&arrow.path, arrow.line, message)
        })
        .collect()
}

fn read(tree: &Tree) -> (Vec<Arrow>, Vec<Violation>) {
    let (mut arrows, mut violations) = (Vec::new(), Vec::new());
    for (path, text) in tree.ending("Cargo.toml") {
        match text.parse::<Table>() {
            Ok(manifest) => arrows.extend(arrows_of(path, text, &manifest)),
            Err(error) => violations.push(Violation::new(path, 0, format!("cannot be read: {error}"))),
        }
    }
    (arrows, violations)
}

fn arrows_of(path: &str, text: &str, manifest: &Table) -> Vec<Arrow> {
    let package = manifest.get("package").and_then(|package| package.get("name")?.as_str());
    let Some(from) = package else { return Vec::new() };
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let scopes =
        [manifest].into_iter().chain(targets.into_iter().flatten().filter_map(|(_, t)| t.as_table()));
    let mut arrows = Vec::new();
    for scope in scopes {
        for (section, kind) in [
            ("dependencies", Section::Normal),
            ("build-dependencies", Section::Normal),
            ("dev-dependencies", Section::Dev),
        ] {
            for (key, value) in scope.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let to = value.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_owned();
                let line = line_of(text, section, key);
                arrows.push(Arrow { from: from.to_owned(), to, section: kind, path: path.to_owned(), line });
            }
        }
    }
    arrows
}

/// The line of a dependency: in its section, or as a section of its own.
fn line_of(text: &str, section: &str, key: &str) -> usize {
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            let header = line.trim_matches(['[', ']']);
            let ends_with = |tail: &str| header == tail || header.ends_with(&format!(".{tail}"));
            if ends_with(&format!("{section}.{key}")) {
                return index + 1;
            }
            inside = ends_with(section);
        } else if inside && line.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', ' ', '='])) {
            return index + 1;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n\n{rest}")
    }

    fn lines(violations: Vec<Violation>) -> Vec<String> {
        violations.iter().map(ToString::to_string).collect()
    }

    fn order(name: &str, rest: &str) -> Vec<String> {
        lines(check_with(&Tree::of(&[("a/Cargo.toml", &manifest(name, rest))]), &[]))
    }

    #[test]
    fn an_arrow_down_is_fine() {
        assert!(
            order("madang-store", "[dependencies]\nmadang-ids.workspace = true\nserde = \"1\"").is_empty()
        );
        assert!(order("madang-loadtest", "[dependencies]\nmadang-client.workspace = true").is_empty());
    }

    #[test]
    fn an_arrow_up_or_aside_is_found() {
        assert_eq!(
            order("madang-store", "[dependencies]\nserde = \"1\"\nmadang-auth = { workspace = true }"),
            [
                "a/Cargo.toml:6: madang-store may not depend on madang-auth, which is in the same row: arrows go down only"
            ]
        );
        assert_eq!(
            order("madang-ids", "[target.'cfg(unix)'.dependencies.madang-bus]\npath = \"x\""),
            [
                "a/Cargo.toml:4: madang-ids may not depend on madang-bus, which is in a row above: arrows go down only"
            ]
        );
        assert_eq!(order("madang-store", "[dev-dependencies]\nmadang-bus.workspace = true").len(), 1);
    }

    #[test]
    fn a_renamed_dependency_does_not_hide() {
        assert_eq!(
            order("madang-ids", "[dependencies]\nwire = { package = \"madang-proto\", path = \"x\" }").len(),
            1
        );
    }

    #[test]
    fn testkit_and_itself_are_for_tests_only() {
        assert!(
            order("madang-bus", "[dev-dependencies]\nmadang-testkit.workspace = true\nmadang-bus = {}")
                .is_empty()
        );
        assert_eq!(order("madang-bus", "[dependencies]\nmadang-testkit.workspace = true").len(), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert!(
            order("madang-new", "[dependencies]\nmadang-ids.workspace = true")[0].contains("has no place")
        );
        assert!(
            order("xtask", "[dependencies]\nmadang-ids.workspace = true")[0].contains("xtask depends on no")
        );
    }

    #[test]
    fn an_exception_covers_its_arrow_and_must_be_needed() {
        let tree =
            Tree::of(&[("a/Cargo.toml", &manifest("madang-ids", "[dependencies]\nmadang-bus.path = \"x\""))]);
        let needed = [Exception { from: "madang-ids", to: "madang-bus", reason: "planted" }];
        assert!(check_with(&tree, &needed).is_empty());
        let stale = [Exception { from: "madang-bus", to: "madang-ids", reason: "planted" }];
        assert_eq!(check_with(&tree, &stale).len(), 2);
    }

    #[test]
    fn a_driver_outside_its_seam_is_found() {
        let tree = Tree::of(&[
            ("s/Cargo.toml", &manifest("madang-store", "[dependencies]\nrusqlite.workspace = true")),
            (
                "c/Cargo.toml",
                &manifest("madang-chat-server", "[dev-dependencies]\nrusqlite.workspace = true"),
            ),
            ("p/Cargo.toml", &manifest("madang-presence", "[dependencies]\nredis = \"1\"")),
        ]);
        assert_eq!(
            lines(check_drivers(&tree)),
            [
                "c/Cargo.toml:5: only madang-store may depend on rusqlite, not madang-chat-server",
                "p/Cargo.toml:5: only madang-bus may depend on redis, not madang-presence"
            ]
        );
    }

    #[test]
    fn a_manifest_that_cannot_be_read_is_found() {
        assert_eq!(check_with(&Tree::of(&[("Cargo.toml", "[")]), &[]).len(), 1);
    }
}
