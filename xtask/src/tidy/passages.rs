//! The prose of a file: comments, documentation and text literals of Rust, comments of other languages, Markdown.

/// Where a passage comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Comment,
    /// A doc comment of Rust.
    Doc,
    /// A text literal of Rust, outside tests.
    Literal,
    /// Markdown outside fences.
    Page,
}

/// A passage: consecutive lines, joined by blanks. Quoted text and code spans are replaced by `x`, because they are data.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) kind: Kind,
    pub(super) text: String,
    /// For each line its offset in `text`, and its number from 1.
    lines: Vec<(usize, usize)>,
}

impl Passage {
    /// The number of the line that contains the byte at `offset` of the text.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        let later = self.lines.partition_point(|(begin, _)| *begin <= offset);
        self.lines.get(later.saturating_sub(1)).map_or(0, |(_, line)| *line)
    }

    fn of(kind: Kind, pieces: &[Piece<'_>]) -> Self {
        let (mut text, mut lines) = (String::new(), Vec::new());
        for piece in pieces {
            if !text.is_empty() {
                text.push(' ');
            }
            lines.push((text.len(), piece.line));
            text.push_str(piece.text.trim());
        }
        Self { kind, text: without_quotes(&text), lines }
    }
}

/// A line of a passage.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    kind: Kind,
    line: usize,
    text: &'a str,
    /// Whether it may continue the passage of the line before.
    continues: bool,
}

/// The passages of a file. Literals of Rust below line `tests_from` are left out.
pub(super) fn passages(path: &str, text: &str, tests_from: usize) -> Vec<Passage> {
    let ending = path.rsplit('.').next().unwrap_or_default();
    let pieces = match ending {
        "rs" => {
            let pieces = Lexer { text, at: 0, line: 1, pieces: Vec::new() }.pieces();
            let is_kept = |piece: &Piece<'_>| piece.kind != Kind::Literal || piece.line < tests_from;
            pieces.into_iter().filter(is_kept).collect()
        }
        "md" => markdown(text),
        "toml" | "txt" | "service" | "py" | "sh" | "yml" | "yaml" => comments(text, "#"),
        "sql" | "cql" => comments(text, "--"),
        "c" | "js" | "css" => [comments(text, "//"), comments(text, "/*"), comments(text, "*")].concat(),
        _ => Vec::new(),
    };
    join(&pieces)
}

/// Joins lines that follow each other. Code between fences is left out.
fn join(pieces: &[Piece<'_>]) -> Vec<Passage> {
    let mut passages = Vec::new();
    let (mut block, mut is_code): (Vec<Piece<'_>>, bool) = (Vec::new(), false);
    for piece in pieces {
        let follows = block.last().is_some_and(|last| last.kind == piece.kind && last.line + 1 == piece.line);
        let is_fence = piece.kind != Kind::Literal && piece.text.trim_start().starts_with("```");
        if !(follows && piece.continues)
            || is_fence
            || piece.text.trim().is_empty()
            || begins_item(piece.text)
        {
            passages.extend(block.first().map(|first| Passage::of(first.kind, &block)));
            block.clear();
        }
        if is_fence {
            is_code = !is_code;
        } else if !is_code {
            block.push(*piece);
        }
    }
    passages.extend(block.first().map(|first| Passage::of(first.kind, &block)));
    passages
}

fn begins_item(text: &str) -> bool {
    let text = text.trim_start();
    let is_numbered =
        text.split_once(". ").is_some_and(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()));
    ["- ", "* ", "| ", "#"].iter().any(|mark| text.starts_with(mark)) || is_numbered
}

fn markdown(text: &str) -> Vec<Piece<'_>> {
    let lines = text.lines().enumerate();
    lines.map(|(index, text)| Piece { kind: Kind::Page, line: index + 1, text, continues: true }).collect()
}

/// Lines that begin with `marker`, without it.
fn comments<'a>(text: &'a str, marker: &str) -> Vec<Piece<'a>> {
    let lines = text.lines().enumerate();
    let comments = lines.filter_map(|(index, line)| {
        let text = line.trim_start().strip_prefix(marker)?;
        Some(Piece { kind: Kind::Comment, line: index + 1, text, continues: true })
    });
    comments.collect()
}

/// Replaces code spans and quoted text by `x`. Offsets stay the same.
fn without_quotes(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for mark in [b'`', b'"'] {
        let mut from = 0;
        while let Some(open) = find(&bytes, mark, from)
            && let Some(close) = find(&bytes, mark, open + 1)
        {
            bytes[open + 1..close].fill(b'x');
            from = close + 1;
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn find(bytes: &[u8], wanted: u8, from: usize) -> Option<usize> {
    bytes.iter().skip(from).position(|byte| *byte == wanted).map(|at| at + from)
}

/// Finds comments and text literals of Rust. It knows just enough of the grammar to tell them from code.
struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    pieces: Vec<Piece<'a>>,
}

impl<'a> Lexer<'a> {
    fn pieces(mut self) -> Vec<Piece<'a>> {
        while let Some(char) = self.text[self.at..].chars().next() {
            let rest = &self.text[self.at..];
            if rest.starts_with("//") {
                self.comment(rest);
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").unwrap_or(rest.len());
                self.put(Kind::Comment, &rest[2..end.max(2)], true);
                self.skip((end + 2).min(rest.len()));
            } else if let Some(hashes) = self.raw_hashes(rest) {
                let open = hashes + 2;
                let close = format!("\"{}", "#".repeat(hashes));
                let end = rest[open..].find(&close).map_or(rest.len(), |end| open + end);
                self.put(Kind::Literal, &rest[open..end], false);
                self.skip((end + close.len()).min(rest.len()));
            } else if char == '"' {
                let end = string_end(rest);
                self.put(Kind::Literal, &rest[1..end], false);
                self.skip((end + 1).min(rest.len()));
            } else if char == '\'' {
                self.skip(char_length(rest));
            } else {
                self.skip(char.len_utf8());
            }
        }
        self.pieces
    }

    fn comment(&mut self, rest: &'a str) {
        let length = rest.find('\n').unwrap_or(rest.len());
        let comment = &rest[..length];
        let is_doc =
            (comment.starts_with("///") && !comment.starts_with("////")) || comment.starts_with("//!");
        let (kind, mark) = if is_doc { (Kind::Doc, 3) } else { (Kind::Comment, 2) };
        let before = self.text[..self.at].rsplit('\n').next().unwrap_or_default();
        let is_own_line = before.trim().is_empty();
        self.put(kind, &comment[mark..], is_own_line);
        if !is_own_line {
            // An empty line ends the passage: a comment on the next line is not about the same code.
            self.put(kind, "", false);
        }
        self.skip(length);
    }

    /// For a raw text literal: the number of `#` before its quote.
    fn raw_hashes(&self, rest: &str) -> Option<usize> {
        let after = rest.strip_prefix('r')?;
        let before = self.text[..self.at].trim_end_matches(['b', 'c']).chars().next_back();
        let is_name = before.is_some_and(|char| char.is_alphanumeric() || char == '_');
        let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
        (!is_name && after[hashes..].starts_with('"')).then_some(hashes)
    }

    /// Keeps each line of `text` as a piece. `continues` says whether the first one may continue a passage.
    fn put(&mut self, kind: Kind, text: &'a str, continues: bool) {
        let pieces = text.split('\n').enumerate().map(|(index, text)| Piece {
            kind,
            line: self.line + index,
            text: text.trim_end_matches('\\'),
            continues: index > 0 || continues,
        });
        self.pieces.extend(pieces);
    }

    fn skip(&mut self, length: usize) {
        self.line += self.text[self.at..self.at + length].matches('\n').count();
        self.at += length;
    }
}

/// The offset of the quote that ends the literal at the beginning of `rest`.
fn string_end(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal, or 1 for the `'` of a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, char)| *char == '\'').map_or(1, |(at, _)| at + 1)
        }
        Some(_) => chars.next().filter(|(_, char)| *char == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(Kind, usize, String)> {
        let passages = passages(path, text, usize::MAX).into_iter();
        passages.map(|passage| (passage.kind, passage.line_at(0), passage.text)).collect()
    }

    fn expected(passages: &[(Kind, usize, &str)]) -> Vec<(Kind, usize, String)> {
        passages.iter().map(|(kind, line, text)| (*kind, *line, (*text).to_owned())).collect()
    }

    #[test]
    fn comments_docs_and_literals_of_rust_are_found() {
        let text = "//! One\n//! two.\n\n/// Doc.\nfn a<'a>() { // beside\n    // first\n    // second\n    let x = ('\"', '\\'', \"li\\\"t \\\n     on // no\");\n    r#\"raw\"#\n}\n";
        let passages = [
            (Kind::Doc, 1, "One two."),
            (Kind::Doc, 4, "Doc."),
            (Kind::Comment, 5, "beside"),
            (Kind::Comment, 6, "first second"),
            (Kind::Literal, 8, "li\\\"t on // no"),
            (Kind::Literal, 10, "raw"),
        ];
        assert_eq!(found("a.rs", text), expected(&passages));
    }

    #[test]
    fn literals_of_tests_are_left_out() {
        let found = passages("a.rs", "a(\"one\");\n// two\nb(\"three\");", 2);
        let texts: Vec<&str> = found.iter().map(|passage| passage.text.as_str()).collect();
        assert_eq!(texts, ["one", "two"]);
    }

    #[test]
    fn pages_are_read_without_fences_code_and_quotes() {
        let text = "# Title\nOne `code`\ntwo.\n\n```\nskipped\n```\n- item \"said\"\n- item\n";
        let passages = [
            (Kind::Page, 1, "# Title One `xxxx` two."),
            (Kind::Page, 8, "- item \"xxxx\""),
            (Kind::Page, 9, "- item"),
        ];
        let passages = expected(&passages);
        let found: Vec<_> = found("a.md", text).into_iter().filter(|(.., text)| !text.is_empty()).collect();
        assert_eq!(found, passages);
    }

    #[test]
    fn a_line_is_found_by_its_offset() {
        let passages = passages("a.sql", "-- one\n-- two\nSELECT 1;\n-- three", 0);
        assert_eq!(passages.len(), 2);
        assert_eq!((passages[0].line_at(0), passages[0].line_at(4), passages[1].line_at(0)), (1, 2, 4));
    }
}
