//! Source files: their length, sleeps in tests, docs of crates, and marks of unfinished work.

use super::tree::{Tree, Violation};

/// The longest `.rs` file, in lines, without its tests.
const MAX_LINES: usize = 500;

/// Longer files, with the reason. An entry that is not needed is a violation itself.
const LONG_FILES: [(&str, &str); 0] = [];

/// The comment that must be beside a sleep in a test.
const WAITS_FOR: &str = "// waits for:";

/// Marks of unfinished work. Written in halves, so that this file does not find itself.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Files in which marks are searched for.
const MARKED: [&str; 15] = [
    ".rs", ".toml", ".md", ".sh", ".ts", ".tsx", ".js", ".html", ".css", ".cql", ".sql", ".yml", ".yaml",
    ".txt", "/run",
];

/// No file is longer than `MAX_LINES`.
pub(super) fn check_length(tree: &Tree) -> Vec<Violation> {
    length_with(tree, &LONG_FILES)
}

fn length_with(tree: &Tree, long_files: &[(&str, &str)]) -> Vec<Violation> {
    let long: Vec<(&str, usize)> = tree
        .ending(".rs")
        .map(|(path, text)| (path, tests_begin(text).unwrap_or_else(|| text.lines().count())))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    let unlisted = long.iter().filter(|(path, _)| !long_files.iter().any(|(listed, _)| listed == path));
    let mut violations: Vec<Violation> = unlisted
        .map(|(path, lines)| {
            let message =
                format!("{lines} lines without tests; {MAX_LINES} are the most: split it by what it is for");
            Violation::new(path, MAX_LINES + 1, message)
        })
        .collect();
    let stale = long_files.iter().filter(|(listed, _)| !long.iter().any(|(path, _)| path == listed));
    violations.extend(stale.map(|(path, reason)| {
        Violation::new(path, 0, format!("is listed as a long file ({reason}), which it is not"))
    }));
    violations
}

/// The index of the line at which the tests of a file begin.
pub(super) fn tests_begin(text: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'))
}

/// Tests do not sleep without a reason.
pub(super) fn check_sleeps(tree: &Tree) -> Vec<Violation> {
    tree.ending(".rs").flat_map(|(path, text)| sleeps(path, text)).collect()
}

fn sleeps(path: &str, text: &str) -> Vec<Violation> {
    let in_tests = path.starts_with("tests/") || path.contains("/tests/");
    let from = if in_tests { Some(0) } else { tests_begin(text) };
    let Some(from) = from else { return Vec::new() };
    let lines: Vec<&str> = text.lines().collect();
    let explained = |index: usize| {
        lines[index].contains(WAITS_FOR)
            || (index > 0 && lines[index - 1].trim_start().starts_with(WAITS_FOR))
    };
    (from..lines.len())
        .filter(|index| is_sleep(lines[*index]) && !explained(*index))
        .map(|index| {
            let message = format!("a sleep in a test: advance the time, or say `{WAITS_FOR} …` beside it");
            Violation::new(path, index + 1, message)
        })
        .collect()
}

/// Whether the line calls a free function `sleep` or `sleep_until`. A method of that name uses the clock.
fn is_sleep(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["sleep(", "sleep_until("].iter().any(|call| {
        code.match_indices(call).any(|(at, _)| {
            let before = &code[..at];
            let free = !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '"'));
            free && !before.ends_with("fn ")
        })
    })
}

/// The root of every crate says why the crate exists.
pub(super) fn check_docs(tree: &Tree) -> Vec<Violation> {
    let roots =
        tree.files().filter(|(path, _)| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"));
    roots
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(path, _)| Violation::new(path, 1, "the root of a crate begins with `//!`: why it exists"))
        .collect()
}

/// No source contains marks of unfinished work: the work is done now or planned elsewhere.
pub(super) fn check_marks(tree: &Tree) -> Vec<Violation> {
    let files = tree.files().filter(|(path, _)| MARKED.iter().any(|ending| path.ends_with(ending)));
    files.flat_map(|(path, text)| marks(path, text)).collect()
}

fn marks(path: &str, text: &str) -> Vec<Violation> {
    let lines = text.lines().enumerate();
    let marked = lines.filter_map(|(index, line)| {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        let mark = words.into_iter().find_map(|word| MARKS.iter().find(|mark| **mark == word))?;
        Some(Violation::new(
            path,
            index + 1,
            format!("{mark}: do it now, or write it down where it is planned"),
        ))
    });
    marked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(violations: Vec<Violation>) -> Vec<(String, usize)> {
        violations.into_iter().map(|violation| (violation.path, violation.line)).collect()
    }

    fn at(path: &str, line: usize) -> (String, usize) {
        (path.to_owned(), line)
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let (code, tests) =
            ("x\n".repeat(500), "#[cfg(test)]\nmod tests {\n".to_owned() + &"x\n".repeat(900));
        let (fine, long) = (code.clone() + &tests, code + "x\n" + &tests);
        let tree = Tree::of(&[("fine.rs", &fine), ("long.rs", &long), ("long.txt", &long)]);
        assert_eq!(places(length_with(&tree, &[])), [at("long.rs", 501)]);
        assert!(length_with(&tree, &[("long.rs", "planted")]).is_empty());
        assert_eq!(
            places(length_with(&tree, &[("fine.rs", "planted"), ("long.rs", "")])),
            [at("fine.rs", 0)]
        );
    }

    #[test]
    fn a_sleep_in_a_test_is_found() {
        // Written differently here, so that this file does not find itself.
        let test =
            "std::thread::nap(x);\nnap(y).await;\ntokio::time::nap_until(z);\n".replace("nap", "sleep");
        let unit = format!("{test}#[cfg(test)]\nmod tests {{\n{test}");
        let tree = Tree::of(&[("a/tests/b.rs", &test), ("a/src/b.rs", &unit), ("a/src/c.rs", &test)]);
        let expected = [
            at("a/src/b.rs", 6),
            at("a/src/b.rs", 7),
            at("a/src/b.rs", 8),
            at("a/tests/b.rs", 1),
            at("a/tests/b.rs", 2),
            at("a/tests/b.rs", 3),
        ];
        assert_eq!(places(check_sleeps(&tree)), expected);
    }

    #[test]
    fn a_sleep_that_says_what_it_waits_for_is_fine() {
        let text = "// waits for: the kernel\nthread::sleep(x);\nsleep(x); // waits for: a lease\nclock.sleep(x);\n\
                    fn sleep() {}\n// sleep(x)\nasleep(x);";
        assert!(check_sleeps(&Tree::of(&[("tests/a.rs", text)])).is_empty());
    }

    #[test]
    fn a_crate_without_docs_is_found() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "//! Why.\n"),
            ("b/src/main.rs", "fn main() {}"),
            ("b/src/x.rs", ""),
        ]);
        assert_eq!(places(check_docs(&tree)), [at("b/src/main.rs", 1)]);
    }

    #[test]
    fn work_that_was_left_is_found() {
        let text = format!("fine\n// {}: later\n{}_LIST\n", MARKS[0], MARKS[0]);
        let tree = Tree::of(&[("a.rs", &text), ("a.bin", &text), ("b.md", &format!("({})", MARKS[1]))]);
        assert_eq!(places(check_marks(&tree)), [at("a.rs", 2), at("b.md", 1)]);
    }
}
