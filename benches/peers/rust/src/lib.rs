//! What the Rust peers share: their arguments, and the talk with `benches/peers/run`.

use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin};

/// Errors end the peer; `run` shows them.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// `produce PORT COUNT FILE QUEUE...` or `consume PORT COUNT QUEUE GROUP`.
pub enum Role {
    /// Publishes `count` events of the file to each queue, a round at a time.
    Produce {
        /// One JSON object each.
        events: Vec<String>,
        /// Where each event goes.
        queues: Vec<String>,
    },
    /// Handles `count` events of a queue, a round at a time.
    Consume {
        /// What is read.
        queue: String,
        /// The consumer group, for a peer that has them.
        group: String,
    },
}

/// What the command line says.
pub struct Task {
    /// Of the private Redis.
    pub url: String,
    /// Events in one round.
    pub count: usize,
    /// What to do with them.
    pub role: Role,
}

impl Task {
    /// Reads the command line, and the events if they are asked for.
    pub fn from_args() -> Result<Self> {
        let mut args = std::env::args().skip(1);
        let mut next = || args.next().ok_or("too few arguments");
        let role = next()?;
        let url = format!("redis://127.0.0.1:{}", next()?);
        let count = next()?.parse()?;
        let role = match role.as_str() {
            "produce" => Role::Produce {
                events: std::fs::read_to_string(next()?)?
                    .lines()
                    .map(str::to_owned)
                    .collect(),
                queues: args.collect(),
            },
            "consume" => Role::Consume {
                queue: next()?,
                group: next()?,
            },
            _ => return Err("produce or consume".into()),
        };
        Ok(Self { url, count, role })
    }
}

/// Each round starts with a line from `run`, and ends with one to it.
pub struct Rounds(Lines<BufReader<Stdin>>);

impl Rounds {
    /// Tells that all is connected.
    #[must_use]
    pub fn ready() -> Self {
        println!("ready");
        Self(BufReader::new(stdin()).lines())
    }

    /// Waits for the next round; false if there is none.
    pub async fn next(&mut self) -> Result<bool> {
        Ok(self.0.next_line().await?.is_some())
    }

    /// Tells how many handlers ran in this round, or how many events were published.
    pub fn done(&self, count: usize) {
        println!("done {count}");
    }
}
