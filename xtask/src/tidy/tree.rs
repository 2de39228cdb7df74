//! The tree as the checks see it: paths and texts, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context, Result};

/// Folders that are not part of the project's source, wherever they are.
const SKIPPED: [&str; 6] = [".git", "node_modules", "dist", "madang-data", ".venv", "__pycache__"];

/// Larger files are data, not source.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// A rule that is not kept, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) path: String,
    /// Counted from 1; 0 means the file as a whole.
    pub(super) line: usize,
    pub(super) message: String,
}

impl Violation {
    pub(super) fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line.max(1), self.message)
    }
}

/// All files by their path from the root, with `/` between folders.
#[derive(Debug, Default)]
pub(super) struct Tree {
    texts: BTreeMap<String, String>,
    /// Paths of all files and folders.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the tree below `root`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    /// A tree with the given paths and texts.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.texts.insert((*path).to_owned(), (*text).to_owned());
            let folders = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
            tree.paths.extend(folders.chain([(*path).to_owned()]));
        }
        tree
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !is_skipped(&name, prefix) {
                    self.read_folder(&entry.path(), &format!("{path}/"))?;
                    self.paths.insert(path);
                }
            } else if kind.is_file() {
                self.read_text(&entry.path(), &path);
                self.paths.insert(path);
            }
        }
        Ok(())
    }

    /// Files that are not UTF-8, or that vanish while the tree is read, have no text.
    fn read_text(&mut self, file: &Path, path: &str) {
        let small = fs::metadata(file).is_ok_and(|metadata| metadata.len() <= MAX_TEXT_BYTES);
        if let Some(text) = small.then(|| fs::read_to_string(file).ok()).flatten() {
            self.texts.insert(path.to_owned(), text);
        }
    }

    /// Path and text of every text file.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Path and text of the files whose names end with `ending`.
    pub(super) fn ending(&self, ending: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(path, _)| path.ends_with(ending))
    }

    /// All paths, including folders and files that are not text.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// Whether there is a file or folder with this path.
    pub(super) fn has(&self, path: &str) -> bool {
        path.is_empty() || self.paths.contains(path)
    }
}

fn is_skipped(name: &str, prefix: &str) -> bool {
    let is_target = prefix.is_empty() && (name == "target" || name.starts_with("target-"));
    is_target || SKIPPED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_read_without_what_is_built() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["target/debug", "a/b", ".git", "a/target"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("x.rs"), "text").unwrap();
        }
        fs::write(root.path().join("image.png"), [0xff, 0xfe]).unwrap();
        let tree = Tree::read(root.path()).unwrap();
        assert_eq!(tree.files().map(|(path, _)| path).collect::<Vec<_>>(), ["a/b/x.rs", "a/target/x.rs"]);
        assert!(tree.has("image.png") && tree.has("a/b") && !tree.has("target"));
    }
}
