//! Files that only their owner may read.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The permissions of the group and of others.
const OTHERS: u32 = 0o077;
/// The permissions of others.
const WORLD: u32 = 0o007;

/// Removes the permissions of everybody but the owner, if the file exists.
///
/// # Errors
/// Others can read the file, and that cannot be changed.
pub fn make_private(path: &Path) -> io::Result<()> {
    let Some(mode) = mode(path) else { return Ok(()) };
    if mode & OTHERS == 0 {
        return Ok(());
    }
    if std::fs::symlink_metadata(path)?.is_symlink() {
        let why = format!(
            "it is a link to a file that other users can read (mode {mode:03o}): chmod 600 that file"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|error| {
        let why =
            format!("other users can read it (mode {mode:03o}), and its mode cannot be changed: {error}");
        io::Error::new(error.kind(), why)
    })?;
    tracing::warn!(
        file = %path.display(),
        mode = format!("{mode:03o}"),
        "other users could read this secret; its mode is now 600. If it may have been read, remove the file: the \
         next start creates a new secret, and all users must log in again"
    );
    Ok(())
}

/// Logs that others can read a file. The group is not checked: an operator may have given it access on purpose.
pub fn warn_if_public(path: &Path) {
    if let Some(mode) = mode(path).filter(|mode| mode & WORLD != 0) {
        let mode = format!("{mode:03o}");
        tracing::warn!(file = %path.display(), mode, "every user of this machine can read this key: chmod 640 or \
             600");
    }
}

fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|file| file.mode() & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_made_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        make_private(&path).unwrap();
        std::fs::write(&path, "x").unwrap();
        for given in [0o644, 0o640, 0o660, 0o604] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(given)).unwrap();
            make_private(&path).unwrap();
            assert_eq!(mode(&path), Some(0o600), "{given:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        make_private(&path).unwrap();
        assert_eq!(mode(&path), Some(0o400));
    }

    #[test]
    fn the_mode_of_a_linked_file_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (elsewhere, path) = (folder.path().join("elsewhere"), folder.path().join("secret"));
        std::fs::write(&elsewhere, "x").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        for (given, is_taken) in [(0o644, false), (0o600, true)] {
            std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(given)).unwrap();
            assert_eq!(make_private(&path).is_ok(), is_taken);
            assert_eq!(mode(&elsewhere), Some(given));
        }
    }
}
