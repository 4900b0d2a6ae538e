//! The users of `scripts/redis/users.acl`, for a server under test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::Server;

/// What `make-users` wrote.
pub struct Users {
    folder: TempDir,
}

impl Users {
    /// Makes them; who comes without a name may do everything.
    pub fn make(args: &[&str]) -> Self {
        let folder = Self::as_shipped(args);
        let file = folder.path().join("users.acl");
        let text = std::fs::read_to_string(&file).unwrap();
        let nobody = "user default off resetpass ~* &* +@all";
        assert!(text.contains(nobody), "{text}");
        let everybody = "user default on nopass ~* &* +@all";
        std::fs::write(&file, text.replace(nobody, everybody)).unwrap();
        Self { folder }
    }

    /// The folder as it comes out of the script.
    pub fn as_shipped(args: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/redis/make-users");
        let made = Command::new(script).args(args).arg(folder.path()).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{made:?}");
        folder
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn password_file(&self, user: &str) -> PathBuf {
        self.folder.path().join("passwords").join(user)
    }

    /// A URL by which a user is asked for.
    pub fn url(&self, url: &str, user: &str) -> String {
        let password = std::fs::read_to_string(self.password_file(user)).unwrap();
        format!("{url}?user={user}&pass={password}")
    }

    /// Lets a process of ours come as the user that its program is, unless it was told another.
    pub fn equip(&self, command: &mut Command) {
        let program = Path::new(command.get_program()).file_name().unwrap();
        let program = program.to_str().unwrap();
        let user = match program {
            "streamfleet" => "operator".to_owned(),
            "streamfleet-router" => "router".to_owned(),
            _ => match program.strip_suffix("-worker") {
                Some(service) => format!("{service}-service"),
                None => return,
            },
        };
        self.be(command, &user);
    }

    /// Lets a process come as a user.
    pub fn be(&self, command: &mut Command, user: &str) {
        command.env("STREAMFLEET_REDIS_USERNAME", user);
        command.env("STREAMFLEET_REDIS_PASSWORD_FILE", self.password_file(user));
    }
}

impl Server {
    /// What was refused to whom, but for what nobody needs.
    pub fn refusals(&self) -> Vec<String> {
        let log: Vec<HashMap<String, redis::Value>> = self.cli("ACL LOG 128");
        let text = |entry: &HashMap<String, redis::Value>, field: &str| -> String {
            redis::from_redis_value(entry[field].clone()).unwrap()
        };
        let refused = log.iter().map(|entry| {
            ["username", "reason", "context", "object"].map(|field| text(entry, field))
        });
        // Settings are for whoever looks after Redis. The client library tells its name.
        refused
            .filter(|[.., object]| !["config|get", "client|setinfo", "client"].contains(&&**object))
            .map(|words| words.join(" "))
            .collect()
    }
}
