//! Secrets: passwords and tokens, read from files. They are in no argument, because everybody on the
//! machine sees those; and nothing here can be shown, neither as text nor for debugging.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::environment;

/// More than any password has: a file that is larger is not the one that was meant.
const MOST_BYTES: u64 = 8 * 1024;

/// Something that must not be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A secret cannot be had from its file. The file's content is in none of these.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: {problem}. The file must hold the secret in one line and nothing else",
    path.display()
)]
pub struct SecretError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it is larger than {MOST_BYTES} bytes")]
    Large,
    #[error("it is not UTF-8")]
    NotText,
    #[error("it has more than one line, or characters that cannot be typed")]
    Lines,
}

impl Secret {
    /// One that is known already.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads one from its file, without the end of its line.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        read(path).map_err(|problem| SecretError {
            path: path.to_owned(),
            problem,
        })
    }

    /// What must not be seen, for who must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn read(path: &Path) -> Result<Secret, Problem> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Problem::Large);
    }
    let text = String::from_utf8(bytes).map_err(|_| Problem::NotText)?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        return Err(Problem::Empty);
    }
    match line.chars().any(char::is_control) {
        true => Err(Problem::Lines),
        false => Ok(Secret(line.to_owned())),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where systemd puts what `LoadCredential=` names.
pub(crate) const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The file of a secret: the one that the variable names; else the credential of that name, if
/// systemd passes it on.
pub fn file(variable: Option<OsString>, credential: &str) -> Option<PathBuf> {
    match variable.filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => {
            let folder = environment::variable(CREDENTIALS)?;
            let file = Path::new(&folder).join(credential);
            file.exists().then_some(file)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            Secret::read(&path).map_err(|error| error.to_string())
        };
        for content in ["pä ss", "pä ss\n", "pä ss\r\n", "pä ss\n\n"] {
            assert_eq!(read(content.as_bytes()), Ok(Secret::new("pä ss")));
        }
        for (content, told) in [
            (&b""[..], "it is empty"),
            (b"\n", "it is empty"),
            (b"canary\ncanary", "more than one line"),
            (b"canary\x1b[m", "cannot be typed"),
            (b"canary\xff", "not UTF-8"),
            (&[b'c'; 10_000], "larger than 8192 bytes"),
        ] {
            let said = read(content).unwrap_err();
            assert!(
                said.contains(told) && said.contains("/password: "),
                "{said}"
            );
            assert!(!said.contains("canary") && !said.contains("ccc"), "{said}");
        }
        let nowhere = Secret::read(&folder.path().join("nowhere")).unwrap_err();
        assert!(nowhere.to_string().contains("No such file"), "{nowhere}");
        assert_eq!(format!("{:?}", Secret::new("canary")), "***");
    }

    #[test]
    fn an_empty_variable_names_no_file() {
        assert_eq!(file(Some("".into()), "no-such-credential"), None);
        let named = file(Some("/x".into()), "redis-password");
        assert_eq!(named, Some("/x".into()));
    }
}
