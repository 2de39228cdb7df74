//! The prose of the project is plain technical English, which engineers from other countries understand at first reading.

use super::passages::{Kind, Passage, passages};
use super::sources::tests_begin;
use super::tree::{Tree, Violation};

/// Pronouns that no sentence needs. Written in halves, as are the following ones, so that this file does not find itself.
const PRONOUNS: [&str; 6] = [
    concat!("sh", "e"),
    concat!("he", "r"),
    concat!("he", "rs"),
    concat!("he", "rself"),
    concat!("who", "ever"),
    concat!("whom", "ever"),
];
const INSTEAD_OF_PRONOUNS: &str = "say the user, the client, the caller or they";

/// Words in place of a number, and a verb in place of the one that says what happens.
const PHRASES: [(&[&str], &str); 10] = [
    (&["so", "many"], INSTEAD_OF_VAGUE),
    (&["so", "often"], INSTEAD_OF_VAGUE),
    (&["so", "long", "as"], INSTEAD_OF_VAGUE),
    (&["for", "so", "long"], INSTEAD_OF_VAGUE),
    (&["is", TOLD], INSTEAD_OF_TOLD),
    (&["are", TOLD], INSTEAD_OF_TOLD),
    (&["was", TOLD], INSTEAD_OF_TOLD),
    (&["were", TOLD], INSTEAD_OF_TOLD),
    (&["be", TOLD], INSTEAD_OF_TOLD),
    (&["been", TOLD], INSTEAD_OF_TOLD),
];
const TOLD: &str = concat!("to", "ld");
const INSTEAD_OF_VAGUE: &str = "say N, at most N, for 60 s, while …";
const INSTEAD_OF_TOLD: &str = "say is notified, acknowledged, logged, sent or recorded";

/// Words with which no statement begins. A question may.
const OPENINGS: [&str; 3] = ["who", "whom", "whose"];
const INSTEAD_OF_OPENINGS: &str = "begin with the subject: a user who …, the client that …";

/// Doc comments that say less than the name below them.
const EMPTY_DOCS: [&str; 14] = [
    "who",
    "whom",
    "whose",
    "which",
    "what",
    "when",
    "where",
    "why",
    "how",
    "how many",
    "how long",
    "since when",
    "until when",
    "these",
];
const INSTEAD_OF_EMPTY_DOCS: &str = "say a unit, a range or a meaning, or nothing";

/// Refuses words, openings and empty docs that are always wrong.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.files().flat_map(|(path, text)| check_file(path, text)).collect()
}

fn check_file(path: &str, text: &str) -> Vec<Violation> {
    let is_test = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
    // Text in tests may be what a user says in a message.
    let tests_from = if is_test { 0 } else { tests_begin(text).map_or(usize::MAX, |index| index + 1) };
    let mut found: Vec<(usize, String)> = Vec::new();
    for passage in passages(path, text, tests_from) {
        check_words(&passage, &mut found);
        check_openings(&passage, &mut found);
        check_docs(&passage, &mut found);
    }
    if path.ends_with(".rs") {
        check_names(text, &mut found);
    }
    found.sort();
    found.into_iter().map(|(line, message)| Violation::new(path, line, message)).collect()
}

fn check_words(passage: &Passage, found: &mut Vec<(usize, String)>) {
    let words = words(&passage.text);
    for (index, (at, word)) in words.iter().enumerate() {
        let mut report = |what: &str, instead: &str| {
            found.push((passage.line_at(*at), format!("`{what}` in prose: {instead}")));
        };
        if PRONOUNS.contains(&word.as_str()) {
            report(word, INSTEAD_OF_PRONOUNS);
        }
        let begins = |phrase: &[&str]| {
            let following = words[index..].iter().map(|(_, word)| word.as_str());
            words.len() - index >= phrase.len() && following.zip(phrase).all(|(word, part)| word == *part)
        };
        if let Some((phrase, instead)) = PHRASES.iter().find(|(phrase, _)| begins(phrase)) {
            let is_apart = words.get(index + phrase.len()).is_some_and(|(_, word)| word == "apart");
            if !is_apart {
                report(&phrase.join(" "), instead);
            }
        }
    }
}

/// Sentences begin after a full stop, at the beginning of a passage, of an item of a list or of a cell of a table.
fn check_openings(passage: &Passage, found: &mut Vec<(usize, String)>) {
    if passage.kind == Kind::Literal {
        return;
    }
    let text = &passage.text;
    for (at, word) in words(text) {
        let is_capital = text[at..].starts_with(char::is_uppercase);
        let before = text[..at].trim_end();
        let begins = before.is_empty() || before.ends_with(['.', '!', '?', '|', '-', '*', '>']);
        let is_question =
            || text[at..].split_inclusive(['.', '!', '?', '|']).next().is_some_and(|s| s.ends_with('?'));
        if OPENINGS.contains(&word.as_str()) && is_capital && begins && !is_question() {
            found.push((
                passage.line_at(at),
                format!("a sentence begins with `{word}`: {INSTEAD_OF_OPENINGS}"),
            ));
        }
    }
}

fn check_docs(passage: &Passage, found: &mut Vec<(usize, String)>) {
    let said = passage.text.trim_end_matches('.').to_lowercase();
    if passage.kind == Kind::Doc && EMPTY_DOCS.contains(&said.as_str()) {
        found.push((
            passage.line_at(0),
            format!("a doc comment that says only `{said}`: {INSTEAD_OF_EMPTY_DOCS}"),
        ));
    }
}

/// Names of functions are read as sentences, above all those of tests.
fn check_names(text: &str, found: &mut Vec<(usize, String)>) {
    for (index, line) in text.lines().enumerate() {
        let Some((before, rest)) = line.trim_start().split_once("fn ") else { continue };
        let is_code = !before.contains("//") && !before.contains('"');
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        if let Some(word) = name.split('_').find(|word| PRONOUNS.contains(word)).filter(|_| is_code) {
            found.push((index + 1, format!("`{word}` in the name of a function: {INSTEAD_OF_PRONOUNS}")));
        }
    }
}

/// Offsets of the words of a text, and the words in lower case. A name such as `of_her` is one word.
fn words(text: &str) -> Vec<(usize, String)> {
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    let mut words = Vec::new();
    let mut at = 0;
    for part in text.split(|char: char| !is_part(char)) {
        if !part.is_empty() {
            words.push((at, part.to_lowercase()));
        }
        at += part.len();
        at += text[at..].chars().next().map_or(0, char::len_utf8);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let violations = check(&Tree::of(&[(path, text)])).into_iter();
        let what = |message: &str| message.split('`').nth(1).unwrap_or_default().to_owned();
        violations.map(|violation| (violation.line, what(&violation.message))).collect()
    }

    fn expected(found: &[(usize, &str)]) -> Vec<(usize, String)> {
        found.iter().map(|(line, what)| (*line, (*what).to_owned())).collect()
    }

    #[test]
    fn pronouns_and_words_in_place_of_a_number_are_found() {
        let text = format!(
            "/// Of a user and {} device.\nfn a() {{\n    bail!(\"{} left\"); // {} times\n    // after so\n    // many lines\n}}\nfn what_{}_said() {{}}\n",
            PRONOUNS[1], "She", "so often", PRONOUNS[0]
        );
        let lines = [(1, PRONOUNS[1]), (3, PRONOUNS[0]), (3, "so often"), (4, "so many"), (7, PRONOUNS[0])];
        assert_eq!(found("a.rs", &text), expected(&lines));
        let text = format!("As {} likes.\n\n```\n{}\n```\n", PRONOUNS[4], PRONOUNS[0]);
        assert_eq!(found("a.md", &text), expected(&[(1, PRONOUNS[4])]));
        let text = format!("# {}\n{}\n", PRONOUNS[0], PRONOUNS[0]);
        assert_eq!(found("a.toml", &text), expected(&[(1, PRONOUNS[0])]));
        let text = format!("-- {}\nSELECT '{}';\n", PRONOUNS[2], PRONOUNS[0]);
        assert_eq!(found("a.sql", &text), expected(&[(1, PRONOUNS[2])]));
        let text = format!("# {}\nA -> {{\"text\":\"{}\"}}\n", PRONOUNS[0], PRONOUNS[0]);
        assert_eq!(found("a.txt", &text), expected(&[(1, PRONOUNS[0])]));
        let text = format!("/// The client was {TOLD} of it. The two cannot be {TOLD} apart.\n");
        assert_eq!(found("a.rs", &text), expected(&[(1, "was told")]));
    }

    #[test]
    fn statements_without_a_subject_are_found() {
        let text = "// Sends. Who waits is\n// woken. Who waits? Whose turn is it?\n/// Who.\n/// A user who waits.\n/// Since when.\n\n/// Which.\n";
        let lines = [(1, "who"), (3, "who")];
        assert_eq!(found("a.rs", &text.replace("/// Since", "\n/// Since")), {
            let mut lines = expected(&lines);
            lines.extend(expected(&[(6, "since when"), (8, "which")]));
            lines
        });
        let page =
            "| a | Who asks is answered |\n- Whose turn it is.\n- Of a user whose turn it is. Who is next?\n";
        assert_eq!(found("a.md", page), expected(&[(1, "who"), (2, "whose")]));
    }

    #[test]
    fn quoted_text_and_code_are_no_prose() {
        let quoted = format!("/// The message \"{}\", as `{}`.\nfn a() {{}}\n", PRONOUNS[0], PRONOUNS[0]);
        let json = format!("const A: &str = r#\"{{\"text\":\"{}\"}}\"#;\n", PRONOUNS[0]);
        let test = format!("#[cfg(test)]\nmod tests {{\n    const A: &str = \"{}\";\n}}\n", PRONOUNS[0]);
        assert_eq!(found("a.rs", &(quoted + &json + &test)), []);
        let said = format!("say(\"{}\");\n", PRONOUNS[0]);
        assert_eq!(found("a/tests/b.rs", &said), []);
        assert_eq!(found("a/src/b.rs", &said), expected(&[(1, PRONOUNS[0])]));
        assert_eq!(found("a.json", &said), []);
    }
}
