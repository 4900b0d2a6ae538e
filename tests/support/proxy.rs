//! A proxy between a worker and Redis that can swallow an answer: the request arrives, the
//! connection is cut before the reply.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub struct Proxy {
    path: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    armed: AtomicBool,
    cuts: AtomicUsize,
}

impl Proxy {
    pub fn start(redis: &Path, at: &Path) -> Self {
        let listener = UnixListener::bind(at).unwrap();
        let state = Arc::new(State::default());
        let (shared, redis) = (state.clone(), redis.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&redis)) else {
                    continue;
                };
                pump(client, server, shared.clone());
            }
        });
        Self {
            path: at.to_owned(),
            state,
        }
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// The next commit is forwarded; then its connection is cut without the answer.
    pub fn swallow_next_commit_answer(&self) {
        self.state.armed.store(true, Ordering::SeqCst);
    }

    /// How often an answer was swallowed.
    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

/// The effect of every probe handler: only a commit carries it.
const COMMIT: &[u8] = b"HINCRBY";

fn pump(client: UnixStream, server: UnixStream, state: Arc<State>) {
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (mut from_server, mut to_client) = (server, client);
    let swallow = Arc::new(AtomicBool::new(false));
    let swallowing = swallow.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(n @ 1..) = from_client.read(&mut buffer) {
            let commits = buffer[..n].windows(COMMIT.len()).any(|w| w == COMMIT);
            if commits && state.armed.swap(false, Ordering::SeqCst) {
                state.cuts.fetch_add(1, Ordering::SeqCst);
                swallowing.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        drop(to_server.shutdown(Shutdown::Both));
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(n @ 1..) = from_server.read(&mut buffer) {
            if swallow.load(Ordering::SeqCst) || to_client.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        drop(to_client.shutdown(Shutdown::Both));
    });
}
