//! The tree is built from the default registries: no mirror of a particular machine is named in it.

use super::tree::{Tree, Violation};

const CARGO_DEFAULT: &str = "registry+https://github.com/rust-lang/crates.io-index";
const NPM_DEFAULT: &str = "https://registry.npmjs.org/";

/// Lock files name only the default registries; settings of tools name no host.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.files().flat_map(|(path, text)| check_file(path, text)).collect()
}

fn check_file(path: &str, text: &str) -> Vec<Violation> {
    let problem: fn(&str) -> Option<&'static str> = match path.rsplit('/').next().unwrap_or(path) {
        "Cargo.lock" => cargo_lock,
        "package-lock.json" => npm_lock,
        "config.toml" if path.ends_with(".cargo/config.toml") => settings,
        ".npmrc" | "pip.conf" | ".yarnrc" | ".yarnrc.yml" => settings,
        _ => return Vec::new(),
    };
    let lines = text.lines().enumerate();
    lines.filter_map(|(index, line)| Some(Violation::new(path, index + 1, problem(line)?))).collect()
}

fn cargo_lock(line: &str) -> Option<&'static str> {
    let source = line.strip_prefix("source = ")?.trim_matches('"');
    (source != CARGO_DEFAULT).then_some("a source other than the default registry")
}

fn npm_lock(line: &str) -> Option<&'static str> {
    let url = line.trim().strip_prefix("\"resolved\": \"")?;
    let remote = url.contains("://");
    (remote && !url.starts_with(NPM_DEFAULT)).then_some("a source other than the default registry")
}

fn settings(line: &str) -> Option<&'static str> {
    line.contains("http").then_some("names a host: such settings belong to a machine, not to the tree")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_source_is_found() {
        let cargo = format!(
            "name = \"a\"\nsource = \"{CARGO_DEFAULT}\"\nsource = \"registry+https://mirror/index\"\n"
        );
        let npm = "\"resolved\": \"https://registry.npmjs.org/a\",\n  \"resolved\": \"https://mirror/a\",\n\"resolved\": \"../x\"";
        let tree = Tree::of(&[
            ("Cargo.lock", &cargo),
            ("web/package-lock.json", npm),
            (".cargo/config.toml", "[alias]\n[source.x]\nregistry = \"https://mirror\""),
            ("web/.npmrc", "registry=http://mirror"),
            ("config.toml", "url = \"https://madang.example\""),
        ]);
        let found: Vec<_> =
            check(&tree).into_iter().map(|violation| (violation.path, violation.line)).collect();
        let expected =
            [(".cargo/config.toml", 3), ("Cargo.lock", 3), ("web/.npmrc", 1), ("web/package-lock.json", 2)];
        assert_eq!(found, expected.map(|(path, line)| (path.to_owned(), line)));
    }
}
