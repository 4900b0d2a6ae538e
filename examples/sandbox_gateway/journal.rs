//! The books with the file that they survive in: one [`Entry`] per line, on disk before it is
//! answered. A line that a crash cut off was never answered, and is cut away.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use rust_decimal::Decimal;
use uuid::Uuid;

use super::book::{Asked, Book, Charge, Entry, Ledger, Refund};

/// The books cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("{path}: {cause}; see that its folder exists and is writable")]
    File { path: PathBuf, cause: io::Error },
    #[error("{path}:{line}: {cause}; move the file away to begin with empty books")]
    Line {
        path: PathBuf,
        line: usize,
        cause: serde_json::Error,
    },
}

/// The books, in memory and perhaps on disk.
pub(crate) struct Journal {
    book: Book,
    file: Option<File>,
}

impl Journal {
    /// Reads the books from the file, or begins them; without one they end with the process.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self, JournalError> {
        let mut book = Book::default();
        let Some(path) = path else {
            return Ok(Self { book, file: None });
        };
        let (file, text) = read(&path).map_err(|cause| JournalError::File {
            path: path.clone(),
            cause,
        })?;
        for (n, line) in text.lines().enumerate() {
            let entry = serde_json::from_str(line).map_err(|cause| JournalError::Line {
                path: path.clone(),
                line: n + 1,
                cause,
            })?;
            book.apply(entry);
        }
        let file = Some(file);
        Ok(Self { book, file })
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        self.book.ledger()
    }

    pub(crate) fn charge(
        &mut self,
        key: &str,
        asked: &Asked,
        decline_above: Option<Decimal>,
    ) -> io::Result<Charge> {
        let fresh = Uuid::new_v4().to_string();
        let (charge, entry) = self.book.charge(key, asked, decline_above, &fresh);
        self.keep(entry)?;
        Ok(charge)
    }

    pub(crate) fn void(&mut self, key: &str) -> io::Result<Option<Refund>> {
        let (refund, entry) = self.book.void(key, &Uuid::new_v4().to_string());
        self.keep(entry)?;
        Ok(refund)
    }

    fn keep(&mut self, entry: Option<Entry>) -> io::Result<()> {
        let Some(entry) = entry else { return Ok(()) };
        if let Some(file) = &mut self.file {
            let end = file.stream_position()?;
            let mut line = serde_json::to_vec(&entry)?;
            line.push(b'\n');
            let written = file.write_all(&line).and_then(|()| file.sync_data());
            if let Err(error) = written {
                // What is half written must not stand before the next line.
                file.set_len(end)?;
                file.seek(SeekFrom::Start(end))?;
                return Err(error);
            }
        }
        self.book.apply(entry);
        Ok(())
    }
}

/// The file, ready to be appended to, and its whole lines.
fn read(path: &PathBuf) -> io::Result<(File, String)> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    bytes.truncate(whole);
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::Start(whole as u64))?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok((file, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_survive_and_a_line_that_was_cut_off_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("books.jsonl");
        let asked = Asked::new(1, "12.3".parse().unwrap());
        let first = {
            let mut journal = Journal::open(Some(path.clone())).unwrap();
            let first = journal.charge("a", &asked, None).unwrap();
            journal.charge("b", &asked, None).unwrap();
            journal.void("b").unwrap();
            first
        };
        let mut text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        text.push_str(r#"{"entry":"charged","key":"c","#);
        std::fs::write(&path, &text).unwrap();

        let mut journal = Journal::open(Some(path.clone())).unwrap();
        assert_eq!(journal.charge("a", &asked, None).unwrap(), first);
        assert_eq!(journal.charge("b", &asked, None).unwrap(), Charge::Voided);
        journal.charge("c", &asked, None).unwrap();
        assert_eq!(journal.ledger().net.to_string(), "24.60");
        drop(journal);
        let journal = Journal::open(Some(path.clone())).unwrap();
        assert_eq!((journal.ledger().charges, journal.ledger().refunds), (3, 1));

        std::fs::write(&path, "{}\n").unwrap();
        let error = Journal::open(Some(path)).err().unwrap().to_string();
        assert!(error.contains("books.jsonl:1: "), "{error}");
    }
}
