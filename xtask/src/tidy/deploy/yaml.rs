//! Reads the part of YAML that deploy/compose.yaml is written in: block maps and lists, flow lists of scalars, anchors, aliases and
//! merges. Anything else is an error, so that nothing is read in another way than the container engine reads it.

use std::collections::BTreeMap;

/// A value and the line on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    List(Vec<Node>),
    Map(Entries),
}

/// Keys and values in their order.
type Entries = Vec<(String, Node)>;

/// What cannot be read: its line, and the reason.
pub(super) type Unreadable = (usize, String);

impl Node {
    /// Reads a document.
    pub(super) fn read(text: &str) -> Result<Self, Unreadable> {
        let lines =
            text.lines().enumerate().filter_map(|(index, line)| Line::of(index + 1, line).transpose());
        let mut reader = Reader { lines: lines.collect::<Result<_, _>>()?, at: 0, anchors: BTreeMap::new() };
        let document = reader.block(0)?;
        match reader.lines.get(reader.at) {
            Some(line) => Err((line.number, "is indented less than the lines before it".to_owned())),
            None => Ok(document),
        }
    }

    /// The value of a key; `None` also if this is not a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The value at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a map; none if this is not a map.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The items of a list; none if this is not a list.
    pub(super) fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The text of a scalar; empty if this is not one.
    pub(super) fn text(&self) -> &str {
        if let Value::Text(text) = &self.value { text } else { "" }
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> Vec<&str> {
        self.items().iter().map(Self::text).collect()
    }
}

/// A line without its comment.
#[derive(Debug)]
struct Line {
    number: usize,
    indent: usize,
    text: String,
}

impl Line {
    /// `None` for a line without content.
    fn of(number: usize, line: &str) -> Result<Option<Self>, Unreadable> {
        let text = without_comment(line).trim_end();
        let indent = text.len() - text.trim_start_matches(' ').len();
        let text = text.trim_start_matches(' ').to_owned();
        match text.chars().next() {
            None => Ok(None),
            Some('\t' | '%' | '?' | '|' | '>') => {
                Err((number, "begins in a way that is not read here".to_owned()))
            }
            Some(_) => Ok(Some(Self { number, indent, text })),
        }
    }
}

fn without_comment(line: &str) -> &str {
    let (mut is_quoted, mut before) = (false, ' ');
    for (at, char) in line.char_indices() {
        match char {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted && before == ' ' => return &line[..at],
            _ => {}
        }
        before = char;
    }
    line
}

struct Reader {
    lines: Vec<Line>,
    at: usize,
    anchors: BTreeMap<String, Node>,
}

impl Reader {
    /// The map or list whose lines have this indent.
    fn block(&mut self, indent: usize) -> Result<Node, Unreadable> {
        let line = self.lines.get(self.at).map_or(0, |line| line.number);
        let is_list = self.next(indent).is_some_and(|text| text.starts_with("- "));
        let value = if is_list { self.list(indent)? } else { self.map(indent)? };
        Ok(Node { line, value })
    }

    /// The next line if it has this indent.
    fn next(&self, indent: usize) -> Option<&str> {
        self.lines.get(self.at).filter(|line| line.indent == indent).map(|line| line.text.as_str())
    }

    fn list(&mut self, indent: usize) -> Result<Value, Unreadable> {
        let mut items = Vec::new();
        while let Some(text) = self.next(indent) {
            let Some(item) = text.strip_prefix("- ").map(str::to_owned) else { break };
            let line = &mut self.lines[self.at];
            if split_key(&item).is_some() {
                // A map that begins beside the dash.
                (line.indent, line.text) = (indent + 2, item);
                items.push(self.block(indent + 2)?);
            } else {
                let number = line.number;
                self.at += 1;
                items.push(self.inline(number, &item)?);
            }
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, indent: usize) -> Result<Value, Unreadable> {
        let (mut entries, mut merged) = (Entries::new(), Entries::new());
        while let Some(text) = self.next(indent).map(str::to_owned) {
            let number = self.lines[self.at].number;
            let Some((key, rest)) = split_key(&text) else {
                return Err((number, "is not `key: value`".to_owned()));
            };
            self.at += 1;
            let node = self.value(number, indent, rest)?;
            match key {
                "<<" => merged.extend_from_slice(node.entries()),
                _ if entries.iter().any(|(name, _)| name == key) => {
                    return Err((number, format!("the key `{key}` is there twice")));
                }
                _ => entries.push((key.to_owned(), node)),
            }
        }
        // The keys of the map itself take precedence.
        for (key, node) in merged {
            if !entries.iter().any(|(name, _)| *name == key) {
                entries.push((key, node));
            }
        }
        Ok(Value::Map(entries))
    }

    /// What follows a key, on its line or below it.
    fn value(&mut self, number: usize, indent: usize, rest: &str) -> Result<Node, Unreadable> {
        let (anchor, rest) = match rest.strip_prefix('&') {
            Some(anchored) => {
                anchored.split_once(' ').map_or((Some(anchored), ""), |(name, rest)| (Some(name), rest))
            }
            None => (None, rest),
        };
        let inner = self.lines.get(self.at).map(|line| line.indent).filter(|inner| *inner > indent);
        let node = match inner {
            Some(inner) if rest.is_empty() => self.block(inner)?,
            Some(_) => return Err((number, "has a value, and lines below it".to_owned())),
            None => self.inline(number, rest.trim())?,
        };
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor.to_owned(), node.clone());
        }
        Ok(node)
    }

    /// A value within a line.
    fn inline(&self, line: usize, text: &str) -> Result<Node, Unreadable> {
        if let Some(name) = text.strip_prefix('*') {
            let unknown = || (line, format!("there is no anchor `{name}` above"));
            return self.anchors.get(name).cloned().ok_or_else(unknown);
        }
        if text == "{}" {
            return Ok(Node { line, value: Value::Map(Vec::new()) });
        }
        let Some(list) = text.strip_prefix('[') else {
            return Ok(Node { line, value: Value::Text(scalar(line, text)?) });
        };
        let open = || (line, "a list does not end on its line".to_owned());
        let items = split_list(list.strip_suffix(']').ok_or_else(open)?);
        let items = items.map(|item| Ok(Node { line, value: Value::Text(scalar(line, item.trim())?) }));
        Ok(Node { line, value: Value::List(items.collect::<Result<_, Unreadable>>()?) })
    }
}

/// `key: value` or `key:`.
fn split_key(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('"') {
        return None;
    }
    let (key, rest) = text.split_once(": ").or_else(|| Some((text.strip_suffix(':')?, "")))?;
    (!key.contains(['"', '[']) && !key.starts_with('-')).then_some((key, rest.trim()))
}

/// Splits at commas outside quotes. An empty list has no items.
fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let parts = list.split(move |char: char| {
        is_quoted ^= char == '"';
        char == ',' && !is_quoted
    });
    parts.filter(move |_| !list.trim().is_empty())
}

fn scalar(line: usize, text: &str) -> Result<String, Unreadable> {
    if let Some(rest) = text.strip_prefix('"') {
        let inner = rest.strip_suffix('"').filter(|inner| !inner.contains(['"', '\\']));
        return inner.map(str::to_owned).ok_or_else(|| (line, "a text in quotes does not end".to_owned()));
    }
    match text.starts_with(['\'', '{', '[', '!', '&', '|', '>', '@', '`', '%']) || text.contains(": ") {
        true => Err((line, format!("`{text}` is not read here: use double quotes"))),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lists_and_merges_are_read() {
        let text = "a: &a\n  b: [x, \"y, z\", --c=1] # why\n  d: \"#1\"\n\ne:\n  <<: *a\n  d: 2\n  f:\n    - g: 1\n      h: 2\n    - \"i: j\"\nk: {}\nl:\n";
        let node = Node::read(text).unwrap();
        assert_eq!(node.at(&["e", "b"]).unwrap().texts(), ["x", "y, z", "--c=1"]);
        assert_eq!(node.at(&["a", "d"]).unwrap().text(), "#1");
        assert_eq!(node.at(&["e", "d"]).map(|node| (node.text(), node.line)), Some(("2", 7)));
        let list = node.at(&["e", "f"]).unwrap().items();
        assert_eq!(list[0].get("h").unwrap().text(), "2");
        assert_eq!(list[1].text(), "i: j");
        assert_eq!(node.entries().len(), 4);
        assert_eq!(node.at(&["k", "x"]), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, line) in [
            ("a: 1\na: 2\n", 2),
            ("a: 1\n  b: 2\n", 1),
            ("a:\n    b: 1\n  c: 2\n", 3),
            ("a: *b\n", 1),
            ("a: [b\n", 1),
            ("a: {b: c}\n", 1),
            ("a: 'b'\n", 1),
            ("a: |\n", 1),
            ("a\n", 1),
            ("a:\n\tb: 1\n", 2),
            ("a: \"b\n", 1),
        ] {
            assert_eq!(Node::read(text).unwrap_err().0, line, "{text:?}");
        }
    }
}
