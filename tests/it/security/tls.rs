//! TLS (`rediss://`) against a Redis that speaks it: whom the processes trust, and whom they show
//! themselves to.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::cli::{Ran, items, run, streamfleet};
use crate::support::{Fleet, Server, event, eventually};

/// Who vouches for certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A certificate for a name, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A fleet whose Redis speaks TLS as `localhost`, and its files.
struct Encrypted {
    fleet: Fleet,
    files: TempDir,
    port: u16,
}

impl Encrypted {
    fn start(auth_clients: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let authority = Authority::new("us");
        let ca = put("ca.pem", &authority.0.pem());
        let (certificate, key) = authority.issue("localhost");
        let certificate = put("server.pem", &certificate);
        let key = put("server.key", &key);
        for (whose, authority) in [
            ("client", &authority),
            ("stranger", &Authority::new("others")),
        ] {
            let (certificate, key) = authority.issue(whose);
            put(&format!("{whose}.pem"), &certificate);
            put(&format!("{whose}.key"), &key);
            put(&format!("{whose}-ca.pem"), &authority.0.pem());
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let server = Server::with(&[
            "--bind",
            "127.0.0.1",
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            auth_clients,
        ]);
        Self {
            fleet: Fleet::on(server),
            files,
            port,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// `host` is who the URL says it is; the files are those for trust, certificate and key.
    fn equip(&self, command: &mut Command, host: &str, files: [&str; 3]) {
        let url = format!("rediss://{host}:{}", self.port);
        command.env("STREAMFLEET_CONFIG", self.fleet.config());
        command.env("STREAMFLEET_REDIS_URL", url);
        for (what, name) in ["CA", "CERT", "KEY"].into_iter().zip(files) {
            if !name.is_empty() {
                command.env(format!("STREAMFLEET_REDIS_{what}_FILE"), self.file(name));
            }
        }
    }

    fn status(&self, host: &str, files: [&str; 3]) -> Ran {
        let mut command = streamfleet(&["status"]);
        self.equip(&mut command, host, files);
        run(command, b"")
    }

    fn router(&self, files: [&str; 3]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamfleet-router"));
        self.equip(&mut command, "localhost", files);
        run(command, b"")
    }
}

#[test]
fn only_a_server_that_is_vouched_for_is_spoken_to() {
    let tls = Encrypted::start("no");
    tls.status("localhost", ["ca.pem", "", ""]).ok();
    for (host, files, told) in [
        ("localhost", ["stranger-ca.pem", "", ""], "UnknownIssuer"),
        ("localhost", ["", "", ""], "UnknownIssuer"),
        ("127.0.0.1", ["ca.pem", "", ""], "not valid for name"),
    ] {
        let said = tls.status(host, files).failed(78);
        assert!(said.contains(told), "{said}");
        assert!(said.contains("STREAMFLEET_REDIS_CA_FILE"), "{said}");
    }
    let said = tls.router(["stranger-ca.pem", "", ""]).failed(78);
    assert!(said.contains("UnknownIssuer"), "{said}");
    let said = tls.status("localhost", ["server.key", "", ""]).failed(78);
    assert!(said.contains("there is no CERTIFICATE in it"), "{said}");
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_it() {
    let tls = Encrypted::start("yes");
    let own = ["ca.pem", "client.pem", "client.key"];
    tls.status("localhost", own).ok();
    for files in [
        ["ca.pem", "", ""],
        ["ca.pem", "stranger.pem", "stranger.key"],
    ] {
        for ran in [tls.status("localhost", files), tls.router(files)] {
            let said = ran.failed(78);
            assert!(said.contains("STREAMFLEET_REDIS_CERT_FILE"), "{said}");
        }
    }
    let said = tls.status("localhost", ["ca.pem", "client.pem", "stranger.key"]);
    assert!(said.failed(78).contains("KeyMismatch"));
}

/// What a finding is proved with reaches the same server, by the same trust.
#[test]
fn proofs_can_be_typed_as_they_stand() {
    let tls = Encrypted::start("yes");
    std::fs::copy(tls.file("ca.pem"), tls.file("our ca.pem")).unwrap();
    let mut doctor = streamfleet(&["doctor", "--output", "json"]);
    tls.equip(
        &mut doctor,
        "localhost",
        ["our ca.pem", "client.pem", "client.key"],
    );
    let found = items(&run(doctor, b"").out);
    assert!(!found.is_empty());
    for finding in found {
        let line = finding["proof"].as_str().unwrap();
        let mut shell = Command::new("bash");
        shell.args(["--noprofile", "--norc", "-c", line]);
        let ran = run(shell, b"");
        assert!(ran.code == Some(0) && ran.err.is_empty(), "{line}: {ran:?}");
        assert!(line.contains("/our ca.pem'"), "{line}");
    }
}

#[test]
fn connections_that_were_cut_are_made_again() {
    let tls = Encrypted::start("yes");
    let mut router = tls.fleet.router_command("r");
    tls.equip(
        &mut router,
        "localhost",
        ["ca.pem", "client.pem", "client.key"],
    );
    let url = router
        .get_envs()
        .find(|(name, _)| *name == "STREAMFLEET_REDIS_URL");
    let url = url.unwrap().1.unwrap().to_owned();
    router.args(["--redis-url", url.to_str().unwrap()]);
    let router = tls.fleet.launch(router, "r", "router started");
    for n in 1..=3 {
        tls.fleet.publish(&[event(serde_json::json!({}))]);
        eventually("it is routed", || {
            (tls.fleet.cli::<usize>("XLEN test-events") == n).then_some(())
        });
        let cut: u64 = tls.fleet.cli("CLIENT KILL TYPE normal SKIPME yes");
        assert!(cut > 0);
    }
    // Nothing of it went by the socket.
    eventually("it is there again, by TLS", || {
        let clients: String = tls.fleet.cli("CLIENT LIST");
        clients.contains(" addr=127.0.0.1").then_some(())
    });
    drop(router);
}
