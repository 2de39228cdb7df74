//! Day files from a folder, a `.tar` or a `.tar.xz`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use liblzma::read::XzDecoder;

use super::Corpus;
use crate::args::Membership;

/// Reads the first `lines` of the first `days` day files at `path`, in the order of their names.
pub(crate) fn corpus(
    path: &Path,
    days: usize,
    lines: usize,
    membership: Membership,
) -> anyhow::Result<Corpus> {
    let mut files =
        files(path).with_context(|| format!("could not read the corpus at {}", path.display()))?;
    files.sort();
    let days = files.into_iter().filter(|(_, bytes)| is_day(bytes)).take(days);
    let corpus = Corpus::from_files(days, lines, membership);
    if corpus.days.is_empty() {
        bail!("{} contains no IRC day files (lines such as `[12:34] <nick> text`)", path.display());
    }
    Ok(corpus)
}

fn files(path: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    if path.is_dir() {
        return folder(path);
    }
    let file = BufReader::new(File::open(path)?);
    match path.extension().and_then(OsStr::to_str) {
        Some("xz" | "txz") => archive(XzDecoder::new(file)),
        Some("tar") => archive(file),
        _ => bail!("expected a folder, a .tar or a .tar.xz"),
    }
}

fn folder(path: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((day_name(&entry.path()), std::fs::read(entry.path())?));
        }
    }
    Ok(files)
}

fn archive(reader: impl Read) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = day_name(&entry.path()?);
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.push((name, bytes));
        }
    }
    Ok(files)
}

/// The name of the file up to the first dot that is not part of a date: `2007-01-12.train-c.raw.txt` becomes
/// `2007-01-12.train-c`.
fn day_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    name.trim_end_matches(".txt").trim_end_matches(".raw").chars().take(100).collect()
}

/// Other files, such as a licence or a read-me, may be in the same folder.
fn is_day(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines().take(200).any(|line| super::irc::parse(line).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_tar_give_the_same_days() {
        let folder = std::env::temp_dir().join(format!("madang-corpus-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in
            [("b.raw.txt", "[00:01] <x> 2\n"), ("a.raw.txt", "[00:01] <x> 1\n"), ("README.txt", "hi")]
        {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let tar = folder.join("all.tar");
        let mut builder = tar::Builder::new(File::create(&tar).unwrap());
        builder.append_path_with_name(folder.join("b.raw.txt"), "c/b.raw.txt").unwrap();
        builder.append_path_with_name(folder.join("a.raw.txt"), "c/a.raw.txt").unwrap();
        builder.finish().unwrap();
        drop(builder);
        let from_tar = corpus(&tar, 9, 9, Membership::Fixed).unwrap();
        std::fs::remove_file(&tar).unwrap();
        let from_folder = corpus(&folder, 9, 9, Membership::Fixed).unwrap();
        let first = corpus(&folder, 1, 9, Membership::Fixed).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let names = |corpus: &Corpus| corpus.days.iter().map(|day| day.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&from_tar), ["a", "b"]);
        assert_eq!(names(&from_folder), ["a", "b"]);
        assert_eq!(names(&first), ["a"]);
    }
}
