//! Programs, commands, flags, packages and features that the files name exist in this tree.

use toml::Table;

use super::super::tree::{Tree, Violation};
use super::agreement::image_problem;
use super::yaml::Node;
use super::{CONTAINERFILE, Fleet, Service, line_of};

/// The folders of the packages whose programs are in the image.
const PACKAGES: [&str; 4] = ["chat-server", "discovery", "presence", "push"];
/// The feature with which each of them belongs to a fleet.
const FEATURE: &str = "fleet";

pub(super) fn check(fleet: &Fleet<'_>) -> Vec<Violation> {
    let mut found = image(fleet);
    for service in fleet.services.iter().filter(|service| service.is_ours()) {
        let command = service.command();
        found.extend(command_problems(fleet.tree, &command).iter().map(|problem| service.violation(problem)));
        found.extend(container(fleet, service));
    }
    found
}

/// Flags of a command line, from the source of its program. The sources follow the usual form of `clap`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flag {
    name: String,
    has_value: bool,
}

/// The flags that a source defines.
fn flags(source: &str) -> Vec<Flag> {
    let (mut is_flag, mut found) = (false, Vec::new());
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[arg(") {
            is_flag = line.contains("long");
        } else if !line.starts_with("///") && !line.starts_with('#') {
            if let Some((name, kind)) = line.split_once(": ").filter(|_| is_flag) {
                let name = name.trim_start_matches("pub(super) ").replace('_', "-");
                found.push(Flag { name: format!("--{name}"), has_value: kind != "bool," });
            }
            is_flag = false;
        }
    }
    found
}

/// What is wrong with a command line. Its first word is the program.
fn command_problems(tree: &Tree, command: &[&str]) -> Vec<String> {
    let [program, rest @ ..] = command else { return Vec::new() };
    let source = |path: &str| tree.files().find(|(known, _)| *known == path).map_or("", |(_, text)| text);
    let (mut main, mut said, mut problems) = (source(&main_of(program)), (*program).to_owned(), Vec::new());
    let mut known = flags(main);
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        if let Some(flag) = word.strip_prefix("--").map(|_| word.split('=').next().unwrap_or_default()) {
            match known.iter().find(|known| known.name == flag) {
                Some(flag) if flag.has_value && !word.contains('=') => drop(words.next()),
                Some(_) => {}
                None => problems.push(format!("`{said}` has no {flag}")),
            }
        } else if !has_command(main, word) {
            problems.push(format!("`{said}` has no command `{word}`"));
            return problems;
        } else {
            // Flags of a command are in its file; a command of a command is in the same file.
            let file = source(&format!("chat-server/src/cli/{word}.rs"));
            main = if file.is_empty() { main } else { file };
            known.extend(flags(main));
            said = format!("{said} {word}");
        }
    }
    problems
}

fn main_of(program: &str) -> String {
    match program.strip_prefix("madang-") {
        Some(package) => format!("{package}/src/main.rs"),
        None => "chat-server/src/cli/mod.rs".to_owned(),
    }
}

/// Whether an enum of the source has a variant with the name of the command.
fn has_command(source: &str, command: &str) -> bool {
    let capital = |part: &str| {
        part.chars().next().map(|first| first.to_uppercase().to_string() + &part[first.len_utf8()..])
    };
    let variant: String = command.split('-').filter_map(capital).collect();
    let mut lines = source.lines().map(str::trim);
    lines.any(|line| line.strip_prefix(&variant).is_some_and(|rest| rest.starts_with(['(', ',', ' '])))
}

/// The container has the program of its health check, and its user owns the data folder.
fn container(fleet: &Fleet<'_>, service: &Service) -> Vec<Violation> {
    let mut found = Vec::new();
    let test = service.node.at(&["healthcheck", "test"]).map(Node::texts).unwrap_or_default();
    if let Some(program) = test.get(1).filter(|program| !fleet.containerfile.contains(**program)) {
        found.push(service.violation(&format!("its health check runs `{program}`, which the image lacks")));
    }
    let user = words_after(fleet.containerfile, "USER").next().unwrap_or_default();
    let user = user.split(':').next().unwrap_or_default();
    let folders = service.node.get("tmpfs").map(Node::texts).unwrap_or_default();
    if !folders.iter().all(|folder| folder.contains(&format!("uid={user},"))) {
        found.push(service.violation(&format!("its data belongs to another user than {user}")));
    }
    found
}

/// The words that follow this one in the Containerfile.
fn words_after<'a>(containerfile: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    let code = containerfile.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words: Vec<&str> = code.flat_map(str::split_whitespace).collect();
    let followed: Vec<&str> = words.windows(2).filter(|pair| pair[0] == word).map(|pair| pair[1]).collect();
    followed.into_iter()
}

/// What the Containerfile says that is not so.
fn image(fleet: &Fleet<'_>) -> Vec<Violation> {
    let text = fleet.containerfile;
    let manifests: Vec<Table> =
        PACKAGES.iter().map(|folder| table(fleet.tree, &format!("{folder}/Cargo.toml"))).collect();
    let mut problems = packages(text, &manifests);
    problems.extend(programs(fleet, &manifests));
    problems.extend(versions(fleet));
    for (holds, word, message) in [
        (
            words_after(text, "cargo").eq(["build"]) && text.contains("--locked"),
            "cargo",
            "is built without --locked",
        ),
        (
            words_after(text, "USER").all(|user| !user.starts_with("root") && !user.starts_with('0')),
            "USER",
            "runs as root",
        ),
        (words_after(text, "STOPSIGNAL").eq(["SIGTERM"]), "STOPSIGNAL", "SIGTERM begins the drain"),
    ] {
        if !holds {
            problems.push((word.to_owned(), message.to_owned()));
        }
    }
    problems
        .into_iter()
        .map(|(part, message)| Violation::new(CONTAINERFILE, line_of(text, &part), message))
        .collect()
}

/// A part of the Containerfile, and what is wrong with it.
type Problem = (String, String);

fn packages(text: &str, manifests: &[Table]) -> Vec<Problem> {
    let name = |manifest: &Table| manifest.get("package")?.get("name")?.as_str().map(str::to_owned);
    let names: Vec<String> = manifests.iter().filter_map(name).collect();
    let built: Vec<&str> = words_after(text, "--package").collect();
    let unknown = built.iter().filter(|built| !names.iter().any(|name| name == *built));
    let mut problems: Vec<Problem> =
        unknown.map(|built| ((*built).to_owned(), format!("there is no package `{built}`"))).collect();
    let features: Vec<&str> = words_after(text, "--features").flat_map(|list| list.split(',')).collect();
    for feature in &features {
        let is_known = feature.split_once('/').is_some_and(|(package, feature)| {
            let of = manifests.iter().filter(|manifest| name(manifest).as_deref() == Some(package));
            of.filter_map(|manifest| manifest.get("features")).any(|known| known.get(feature).is_some())
        });
        if !is_known {
            problems.push(((*feature).to_owned(), format!("there is no feature `{feature}`")));
        }
    }
    let without = built.iter().filter(|package| !features.contains(&format!("{package}/{FEATURE}").as_str()));
    problems.extend(without.map(|package| {
        ("--features".to_owned(), format!("{package} is built without its feature `{FEATURE}`"))
    }));
    problems
}

/// Programs that are built exist, and those that compose.yaml runs are copied into the image.
fn programs(fleet: &Fleet<'_>, manifests: &[Table]) -> Vec<Problem> {
    let text = fleet.containerfile;
    let bins = manifests.iter().filter_map(|manifest| manifest.get("bin")?.as_array()).flatten();
    let known: Vec<&str> = bins.filter_map(|bin| bin.get("name")?.as_str()).collect();
    let unknown = words_after(text, "--bin").filter(|bin| !known.contains(bin));
    let mut problems: Vec<Problem> =
        unknown.map(|bin| (bin.to_owned(), format!("there is no program `{bin}`"))).collect();
    let profile = words_after(text, "--profile").next().unwrap_or("release");
    if table(fleet.tree, "Cargo.toml").get("profile").and_then(|profiles| profiles.get(profile)).is_none() {
        problems.push((profile.to_owned(), format!("there is no profile `{profile}`")));
    }
    let copied =
        |program: &str| text.split_whitespace().any(|word| word == format!("target/{profile}/{program}"));
    let run = fleet
        .services
        .iter()
        .filter(|service| service.is_ours())
        .filter_map(|service| service.command().first().copied());
    let missing: std::collections::BTreeSet<&str> = run.filter(|program| !copied(program)).collect();
    problems.extend(
        missing.iter().map(|program| ("install".to_owned(), format!("`{program}` is not in the image"))),
    );
    problems
}

/// The compiler is that of the tree, images have versions, and both stages have the same C library.
fn versions(fleet: &Fleet<'_>) -> Vec<Problem> {
    let text = fleet.containerfile;
    let toolchain = table(fleet.tree, "rust-toolchain.toml");
    let channel =
        toolchain.get("toolchain").and_then(|table| table.get("channel")?.as_str()).unwrap_or_default();
    let mut problems = Vec::new();
    if !words_after(text, "ARG").any(|argument| argument == format!("RUST={channel}")) {
        problems.push(("ARG".to_owned(), format!("rust-toolchain.toml has {channel}")));
    }
    let images: Vec<&str> = words_after(text, "FROM").collect();
    problems.extend(images.iter().filter_map(|image| Some(((*image).to_owned(), image_problem(image)?))));
    let release = images.first().and_then(|image| image.rsplit('-').next()).unwrap_or_default();
    if images.last().is_some_and(|image| !image.contains(release)) {
        problems.push((
            images.last().copied().unwrap_or_default().to_owned(),
            "is of another release of Debian".to_owned(),
        ));
    }
    problems
}

fn table(tree: &Tree, path: &str) -> Table {
    let text = tree.files().find(|(known, _)| *known == path).map_or("", |(_, text)| text);
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_the_source() {
        let source = "struct A {\n    /// Doc.\n    #[arg(long, default_value_t = 3)]\n    data_center: Option<String>,\n    #[arg(long)]\n    keep: bool,\n    handle: String,\n}\n";
        let flag = |name: &str, has_value| Flag { name: name.to_owned(), has_value };
        assert_eq!(flags(source), [flag("--data-center", true), flag("--keep", false)]);
        assert!(
            has_command("    CheckConfig,\n", "check-config") && !has_command("    Check,\n", "check-config")
        );
    }
}
