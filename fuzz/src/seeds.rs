//! Initial inputs: the examples of docs/protocol.md, the texts of the transcripts, and inputs from earlier searches in
//! `seeds/`, one JSON string per line, in which each character is a byte.

use std::path::Path;
use std::{fs, io};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// The JSON of the protocol's examples, and each line that a transcript sends or expects.
///
/// # Errors
/// If the transcripts cannot be read.
pub fn examples() -> io::Result<Vec<Vec<u8>>> {
    let mut examples: Vec<Vec<u8>> = PROTOCOL
        .split("\n```")
        .filter_map(|block| block.strip_prefix("json ")?.split_once('\n'))
        .map(|(_, json)| json.as_bytes().to_vec())
        .collect();
    for entry in fs::read_dir(root().join("transcripts"))? {
        let text = fs::read_to_string(entry?.path())?;
        let said = text.lines().filter_map(|line| line.find('{').map(|start| &line[start..]));
        examples.extend(said.map(|said| said.as_bytes().to_vec()));
    }
    Ok(examples)
}

/// The stored seeds of a target.
///
/// # Errors
/// If there is no such file, or a line is not a JSON string of bytes.
pub fn kept(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let text = fs::read_to_string(root().join("fuzz/seeds").join(format!("{target}.txt")))?;
    text.lines().map(|line| bytes_of(line).ok_or_else(|| io::Error::other(line.to_owned()))).collect()
}

fn bytes_of(line: &str) -> Option<Vec<u8>> {
    let text: String = serde_json::from_str(line).ok()?;
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
