//! Calling a script: EVALSHA, and SCRIPT LOAD where Redis has forgotten it.
//!
//! Arguments go straight into the command's buffer: batches have thousands of them, and the client
//! library's own invocation allocates and copies each.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, ToRedisArgs};

/// A script of ours.
pub(super) struct Script(redis::Script);

impl Script {
    pub(super) fn new(code: &str) -> Self {
        Self(redis::Script::new(code))
    }

    /// Starts a call with its first key.
    pub(super) fn key(&self, key: impl ToRedisArgs) -> Call<'_> {
        let mut call = Call {
            script: &self.0,
            keys: Vec::new(),
            command: None,
        };
        call.key(key);
        call
    }

    /// Makes Redis know it.
    pub(super) async fn load(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        self.0.load_async(connection).await.map(drop)
    }
}

/// A call: first its keys, then its arguments.
pub(super) struct Call<'a> {
    script: &'a redis::Script,
    keys: Vec<Vec<u8>>,
    /// Once the keys are complete.
    command: Option<Cmd>,
}

impl Call<'_> {
    /// Another key, or several.
    pub(super) fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        debug_assert!(self.command.is_none(), "keys come before arguments");
        key.write_redis_args(&mut self.keys);
        self
    }

    /// Makes room for so many arguments and bytes; all keys are there.
    pub(super) fn reserve(&mut self, arguments: usize, bytes: usize) -> &mut Self {
        self.command = Some(begin(self.script, &self.keys, arguments, bytes));
        self
    }

    /// Another argument, or several.
    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command().arg(arg);
        self
    }

    fn command(&mut self) -> &mut Cmd {
        let Self {
            script,
            keys,
            command,
        } = self;
        command.get_or_insert_with(|| begin(script, keys, 0, 0))
    }

    /// The command as it stands, for who sends it among others.
    pub(super) fn into_command(mut self) -> Cmd {
        self.command();
        self.command.unwrap_or_default()
    }

    pub(super) async fn invoke_async<T: FromRedisValue>(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<T, RedisError> {
        let script = self.script;
        let command = self.command();
        match command.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.load_async(connection).await?;
                command.query_async(connection).await
            }
            answered => answered,
        }
    }
}

fn begin(script: &redis::Script, keys: &[Vec<u8>], arguments: usize, bytes: usize) -> Cmd {
    let own: usize = keys.iter().map(Vec::len).sum();
    let mut command = Cmd::with_capacity(3 + keys.len() + arguments, 64 + own + bytes);
    command
        .arg("EVALSHA")
        .arg(script.get_hash())
        .arg(keys.len())
        .arg(keys);
    command
}
