//! A folder of mail, one `<event_id>.eml` per event.
//!
//! A file under that name is complete and on disk: it is written aside, synced and then renamed. A
//! worker killed in between leaves a hidden `.<event_id>.<random>.tmp`, which may be deleted.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// The folder could not be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {cause}; see that the folder exists, is writable and has room")]
pub(crate) struct OutboxError {
    path: PathBuf,
    cause: io::Error,
}

pub(crate) struct Outbox {
    folder: PathBuf,
}

impl Outbox {
    /// Opens the folder, creating it if need be.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, OutboxError> {
        std::fs::create_dir_all(&folder).map_err(|cause| OutboxError {
            path: folder.clone(),
            cause,
        })?;
        Ok(Self { folder })
    }

    /// Whether the mail of this event has been written.
    pub(crate) async fn contains(&self, event_id: Uuid) -> Result<bool, OutboxError> {
        let path = self.path(event_id);
        tokio::fs::try_exists(&path)
            .await
            .map_err(|cause| OutboxError { path, cause })
    }

    /// Writes the mail of this event. Whoever comes second replaces a complete file by another.
    pub(crate) async fn write(&self, event_id: Uuid, mail: &[u8]) -> Result<(), OutboxError> {
        let path = self.path(event_id);
        // Random, so that two workers that both believe the event is theirs never share a file.
        let aside = self
            .folder
            .join(format!(".{event_id}.{}.tmp", Uuid::new_v4().simple()));
        let written = write_synced(&aside, mail).await;
        let renamed = match written {
            Ok(()) => self.rename(&aside, &path).await,
            Err(cause) => Err(cause),
        };
        if let Err(cause) = renamed {
            // The error to report is the one above; without room there may be nothing to remove.
            let _ = tokio::fs::remove_file(&aside).await;
            return Err(OutboxError { path, cause });
        }
        Ok(())
    }

    async fn rename(&self, aside: &Path, path: &Path) -> io::Result<()> {
        tokio::fs::rename(aside, path).await?;
        // The name itself is on disk only once its folder is synced.
        tokio::fs::File::open(&self.folder).await?.sync_all().await
    }

    fn path(&self, event_id: Uuid) -> PathBuf {
        self.folder.join(format!("{event_id}.eml"))
    }
}

async fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tokio::fs::File::create_new(path).await?;
    file.write_all(bytes).await?;
    file.sync_all().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mail_appears_whole_and_under_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path().join("a/b")).unwrap();
        assert!(!outbox.contains(Uuid::nil()).await.unwrap());
        outbox.write(Uuid::nil(), b"first").await.unwrap();
        outbox.write(Uuid::nil(), b"again").await.unwrap();
        assert!(outbox.contains(Uuid::nil()).await.unwrap());
        let files: Vec<_> = std::fs::read_dir(folder.path().join("a/b"))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(files, [format!("{}.eml", Uuid::nil())]);
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path().join("gone")).unwrap();
        std::fs::remove_dir(folder.path().join("gone")).unwrap();
        let error = outbox
            .write(Uuid::nil(), b"mail")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("gone/00000000-0000-0000-0000-000000000000.eml"),
            "{error}"
        );
    }
}
