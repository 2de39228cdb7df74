//! `madang users export`: the file that an export is written to.

use std::io::ErrorKind;
use std::path::Path;

use madang_proto::rest::ExportEnd;
use madang_proto::{ErrorBody, ErrorCode};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use crate::operations::Export;

/// Writes an export to a new file that only its owner can read. If it fails, the file is removed.
pub(super) async fn write(export: Export, to: &Path) -> Result<ExportEnd, ErrorBody> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).await;
    let file = file.map_err(|error| unwritable(to, &error))?;
    let written = write_lines(export, file, to).await;
    if written.is_err() {
        // The first error is returned, not one of this call.
        let _ = tokio::fs::remove_file(to).await;
    }
    written
}

async fn write_lines(mut export: Export, mut file: File, to: &Path) -> Result<ExportEnd, ErrorBody> {
    while let Some(lines) = export.next().await? {
        file.write_all(&lines).await.map_err(|error| unwritable(to, &error))?;
    }
    file.sync_all().await.map_err(|error| unwritable(to, &error))?;
    Ok(export.counts())
}

fn unwritable(to: &Path, error: &std::io::Error) -> ErrorBody {
    let hint = match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            ": the server may write only where its unit allows it (StateDirectory=, ReadWritePaths=)"
        }
        _ => "",
    };
    ErrorBody::field(ErrorCode::Invalid, "to", format!("{}: {error}{hint}", to.display()))
}
