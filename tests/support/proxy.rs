//! A proxy between a process and Redis that makes the way between them bad: it cuts connections
//! at a chosen request or answer, holds bytes back, lets them vanish, or turns everybody away.
//!
//! What it does, TCP could do as well: a connection that lost a byte never carries another one.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How the way is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Good,
    /// Whatever is sent, either way, arrives later by a random time up to so many milliseconds,
    /// at least a sixth of it.
    Slow(u64),
    /// Of so many pieces of what is sent, either way, one is the last on its connection.
    Breaks(u64),
    /// What is sent vanishes; connections stay open, new ones are taken and as silent.
    Hole,
    /// What is sent arrives when the way is good again.
    Held,
    /// Answers come byte by byte, one per millisecond.
    Trickle,
    /// Every connection is closed as soon as it is made.
    Closed,
}

/// What is lost of an exchange with Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The connection is cut before the request reaches Redis.
    Request,
    /// Redis carries the request out; the connection is cut before its answer.
    Answer,
}

pub struct Proxy {
    path: PathBuf,
    state: Arc<State>,
}

struct State {
    way: Mutex<Way>,
    armed: Mutex<Option<(Lost, Vec<u8>)>>,
    /// How often something was lost, cut, or swallowed by the way.
    struck: AtomicUsize,
    /// When somebody connected.
    attempts: Mutex<Vec<Instant>>,
    open: Mutex<Vec<Arc<Pair>>>,
    seed: AtomicU64,
}

/// One connection, and its other half.
struct Pair {
    client: UnixStream,
    server: UnixStream,
    /// Bytes were lost: nothing passes any more.
    dead: AtomicBool,
    /// The answers that come are for nobody.
    swallow: AtomicBool,
}

impl Pair {
    fn cut(&self) {
        drop(self.server.shutdown(Shutdown::Both));
        drop(self.client.shutdown(Shutdown::Both));
    }
}

impl Proxy {
    /// Listens at `at` for those who want to reach `redis`.
    pub fn start(redis: &Path, at: &Path) -> Self {
        let listener = UnixListener::bind(at).unwrap();
        let state = Arc::new(State {
            way: Mutex::new(Way::Good),
            armed: Mutex::new(None),
            struck: AtomicUsize::new(0),
            attempts: Mutex::default(),
            open: Mutex::default(),
            seed: AtomicU64::new(1),
        });
        let (shared, redis) = (state.clone(), redis.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                shared.attempts.lock().unwrap().push(Instant::now());
                if shared.way() == Way::Closed {
                    shared.strikes();
                    continue;
                }
                if let Ok(server) = UnixStream::connect(&redis) {
                    pump(client, server, &shared);
                }
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

    /// From now on the way is like this, for open connections as well.
    pub fn set(&self, way: Way) {
        *self.state.way.lock().unwrap() = way;
        if way == Way::Closed {
            self.cut_all();
        }
    }

    /// Cuts every connection.
    pub fn cut_all(&self) {
        self.state
            .open
            .lock()
            .unwrap()
            .iter()
            .for_each(|pair| pair.cut());
    }

    /// Redis' ends of all connections are closed, and nobody tells the processes. Answers how
    /// many there were.
    pub fn half_close(&self) -> usize {
        let open = self.state.open.lock().unwrap();
        for pair in open.iter() {
            pair.dead.store(true, Ordering::SeqCst);
            drop(pair.server.shutdown(Shutdown::Both));
        }
        open.len()
    }

    /// Of the next call of this script (its file in `src/store/lua`), this is lost.
    pub fn lose_next(&self, lost: Lost, script: &str) {
        *self.state.armed.lock().unwrap() = Some((lost, hash_of(script)));
    }

    /// Whether what [`lose_next`](Self::lose_next) waits for has not come yet.
    pub fn waits(&self) -> bool {
        self.state.armed.lock().unwrap().is_some()
    }

    /// How often it really did harm.
    pub fn struck(&self) -> usize {
        self.state.struck.load(Ordering::SeqCst)
    }

    /// When somebody connected.
    pub fn attempts(&self) -> Vec<Instant> {
        self.state.attempts.lock().unwrap().clone()
    }
}

/// What a call of this script has in it: the hash by which Redis knows it.
fn hash_of(script: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/lua");
    let text = |name: &str| std::fs::read_to_string(folder.join(format!("{name}.lua"))).unwrap();
    let flags = if script == "route" {
        ""
    } else {
        " flags=allow-oom"
    };
    let effects = match script {
        "commit" => text("effects"),
        _ => String::new(),
    };
    let whole = format!("#!lua{flags}\n{}{effects}{}", text("prelude"), text(script));
    redis::Script::new(&whole).get_hash().as_bytes().to_vec()
}

impl State {
    fn way(&self) -> Way {
        *self.way.lock().unwrap()
    }

    fn strikes(&self) {
        self.struck.fetch_add(1, Ordering::SeqCst);
    }

    /// What this request loses.
    fn fate(&self, request: &[u8]) -> Option<Lost> {
        let mut armed = self.armed.lock().unwrap();
        let meant = armed
            .as_ref()
            .is_some_and(|(_, hash)| request.windows(hash.len()).any(|part| part == hash));
        let fate = armed.take_if(|_| meant)?;
        self.strikes();
        Some(fate.0)
    }

    /// A number below `limit`, the same sequence in each run.
    fn random(&self, limit: u64) -> u64 {
        // splitmix64
        let mut z = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// What the way does to something on it. False: this connection is over.
    fn carry(&self, pair: &Pair, mut to: &UnixStream, bytes: &[u8], answer: bool) -> bool {
        while self.way() == Way::Held {
            std::thread::sleep(Duration::from_millis(5));
        }
        match self.way() {
            Way::Slow(most) => {
                self.strikes();
                let wait = most / 6 + self.random(most - most / 6);
                std::thread::sleep(Duration::from_millis(wait));
            }
            Way::Breaks(one_in) if self.random(one_in) == 0 => {
                self.strikes();
                return false;
            }
            Way::Hole => {
                self.strikes();
                pair.dead.store(true, Ordering::SeqCst);
            }
            Way::Trickle if answer => {
                self.strikes();
                return bytes.iter().all(|byte| {
                    std::thread::sleep(Duration::from_millis(1));
                    to.write_all(&[*byte]).is_ok()
                });
            }
            _ => {}
        }
        pair.dead.load(Ordering::SeqCst) || to.write_all(bytes).is_ok()
    }
}

/// Most of a hash that can be in front of the part of it that comes with the next read.
const OVERLAP: usize = 39;

fn pump(client: UnixStream, server: UnixStream, state: &Arc<State>) {
    let pair = Arc::new(Pair {
        client,
        server,
        dead: AtomicBool::new(false),
        swallow: AtomicBool::new(false),
    });
    state.open.lock().unwrap().push(pair.clone());
    let (up, shared) = (pair.clone(), state.clone());
    std::thread::spawn(move || requests(&up, &shared));
    let shared = state.clone();
    std::thread::spawn(move || answers(&pair, &shared));
}

fn requests(pair: &Arc<Pair>, state: &State) {
    let (mut client, mut buffer) = (&pair.client, vec![0; 1 << 20]);
    let mut seen = Vec::new();
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        seen.drain(..seen.len().saturating_sub(OVERLAP));
        seen.extend_from_slice(&buffer[..n]);
        match state.fate(&seen) {
            Some(Lost::Request) => break,
            Some(Lost::Answer) => {
                pair.swallow.store(true, Ordering::SeqCst);
                drop((&pair.server).write_all(&buffer[..n]));
                // Redis reads all of it and answers into the void.
                std::thread::sleep(Duration::from_millis(20));
                break;
            }
            None => {}
        }
        if !state.carry(pair, &pair.server, &buffer[..n], false) {
            break;
        }
    }
    pair.cut();
    state
        .open
        .lock()
        .unwrap()
        .retain(|one| !Arc::ptr_eq(one, pair));
}

fn answers(pair: &Pair, state: &State) {
    let (mut server, mut buffer) = (&pair.server, vec![0; 1 << 20]);
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        let swallowed = pair.swallow.load(Ordering::SeqCst);
        if !swallowed && !state.carry(pair, &pair.client, &buffer[..n], true) {
            break;
        }
    }
    if !pair.dead.load(Ordering::SeqCst) && !pair.swallow.load(Ordering::SeqCst) {
        pair.cut();
    }
}
