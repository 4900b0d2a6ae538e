//! The way to whoever is the master now, and a slow wire from a master to its replica.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// A Unix socket that leads to one server, and then to another.
pub struct Front(Arc<Lead>);

#[derive(Default)]
struct Lead {
    to: Mutex<Option<PathBuf>>,
    open: Mutex<Vec<UnixStream>>,
}

impl Front {
    pub fn at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let lead = Arc::new(Lead::default());
        let shared = lead.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // Nobody there: the client finds its connection closed.
                let to = shared.to.lock().unwrap();
                let Some(server) = to.as_ref().and_then(|to| UnixStream::connect(to).ok()) else {
                    continue;
                };
                let copies = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                shared.open.lock().unwrap().extend(copies);
                drop(to);
                pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                pass(server, client);
            }
        });
        Self(lead)
    }

    /// From now on it leads there. Connections to where it led before are cut.
    pub fn lead_to(&self, socket: &Path) {
        *self.0.to.lock().unwrap() = Some(socket.to_owned());
        for stream in self.0.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    });
}

/// A wire to a server on this machine on which what the server says is under way for a while.
pub struct Wire {
    pub port: u16,
    cut: Arc<Cut>,
}

#[derive(Default)]
struct Cut {
    done: AtomicBool,
    /// Kept open when the wire is cut: a network that fails closes nothing.
    open: Mutex<Vec<TcpStream>>,
}

impl Wire {
    pub fn to(server: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(Cut::default());
        let shared = cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let reached = TcpStream::connect(("127.0.0.1", server));
                if let (false, Ok(server)) = (shared.done.load(Ordering::SeqCst), reached) {
                    let copy = |stream: &TcpStream| stream.try_clone().unwrap();
                    let copies = [copy(&client), copy(&server)];
                    shared.open.lock().unwrap().extend(copies);
                    carry(copy(&client), copy(&server), Duration::ZERO, shared.clone());
                    carry(server, client, delay, shared.clone());
                }
            }
        });
        Self { port, cut }
    }

    /// What is under way never arrives, and nothing passes any more.
    pub fn cut(&self) {
        self.cut.done.store(true, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration, cut: Arc<Cut>) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n) = from.read(&mut buffer) {
            let sent = sender.send((Instant::now() + delay, buffer[..n].to_vec()));
            if n == 0 || sent.is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if cut.done.load(Ordering::SeqCst) {
                return;
            }
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                drop(to.shutdown(Shutdown::Both));
                return;
            }
        }
    });
}
