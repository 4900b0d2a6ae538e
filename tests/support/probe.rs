//! A worker whose handler does what each event tells it to. Tests start it as a process of its
//! own (this test program, asked to be a worker), so that it can be killed and stopped.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use streamfleet::process::{Reloader, stop_on_signal, telemetry};
use streamfleet::routing::Config;
use streamfleet::store::Redis;
use streamfleet::worker::{self, Stop, WorkerOptions};
use streamfleet::{Context, Event, Handler, HandlerError};

#[derive(Deserialize)]
struct Data {
    #[serde(default, rename = "do")]
    action: String,
    #[serde(default)]
    ms: u64,
}

/// Counts how often each event was handled, in `<subscriber>:handled`, and notes each start in
/// `<subscriber>:started` by itself, outside of the commit.
async fn handle(event: &Event, cx: &mut Context, subscriber: &str) -> Result<(), HandlerError> {
    note_start(event, subscriber);
    let data: Data = event.data()?;
    let pause = tokio::time::sleep(Duration::from_millis(data.ms));
    let last = cx.attempt() >= 3;
    match data.action.as_str() {
        "fail" => return Err(HandlerError::retry("told to fail")),
        "fail twice" if !last => return Err(HandlerError::retry("told to fail twice")),
        "reject" => return Err(HandlerError::reject("told to reject")),
        "unavailable once" if !cx.is_member("unavailable", event.id().to_string()).await? => {
            mark(&format!("{subscriber}:unavailable"), event);
            return Err(HandlerError::unavailable("told to be unavailable"));
        }
        "panic" => panic!("told to panic"),
        "abort" => {
            pause.await;
            std::process::abort()
        }
        "sleep" => pause.await,
        "block" => std::thread::sleep(Duration::from_millis(data.ms)),
        "wrong type" => cx.set("handled", "x")?,
        "read and add" => {
            let before = cx.get("sum").await?;
            pause.await;
            let sum: u64 = before
                .as_deref()
                .map_or(0, |v| String::from_utf8_lossy(v).parse().unwrap());
            cx.require("sum", before.as_deref())?;
            cx.set("sum", (sum + 1).to_string())?;
        }
        "follow" => cx.publish("Test.Followed", &serde_json::json!({"parent": event.id()}))?,
        "follow and fail" => {
            cx.publish("Test.Followed", &serde_json::json!({"parent": event.id()}))?;
            return Err(HandlerError::retry("after asking for a follow-up"));
        }
        "loop" => cx.publish("Test.Looped", &serde_json::json!({"do": "loop"}))?,
        "give way" => {
            let stopping = cx.stopping();
            tokio::select! {
                () = stopping => return Err(HandlerError::retry("gave way")),
                () = pause => {}
            }
        }
        "add and fail" => {
            cx.hash_increment("handled", &event.id().to_string(), 1)?;
            return Err(HandlerError::retry("after asking for an effect"));
        }
        "tell its key" => {
            let key = cx.idempotency_key();
            directly(redis::cmd("SADD").arg("keys").arg(key));
            if !last {
                return Err(HandlerError::retry("told its key"));
            }
        }
        "sleep and read" => {
            pause.await;
            cx.get("sum").await?;
        }
        "nothing" => return Ok(()),
        _ => {}
    }
    cx.hash_increment("handled", &event.id().to_string(), 1)?;
    Ok(())
}

fn url() -> String {
    std::env::var("PROBE_URL").unwrap()
}

/// Notes a start at once, whatever becomes of it (unless Redis is away).
fn note_start(event: &Event, subscriber: &str) {
    let key = format!("{subscriber}:started");
    directly(
        redis::cmd("HINCRBY")
            .arg(key)
            .arg(event.id().to_string())
            .arg(1),
    );
}

fn mark(key: &str, event: &Event) {
    directly(redis::cmd("SADD").arg(key).arg(event.id().to_string()));
}

fn directly(command: &redis::Cmd) {
    let client = redis::Client::open(direct_url()).unwrap();
    drop(
        client
            .get_connection()
            .and_then(|mut connection| command.exec(&mut connection)),
    );
}

/// Redis without a proxy in between.
fn direct_url() -> String {
    std::env::var("STREAMFLEET_REDIS_URL").unwrap()
}

struct Probe;
impl Handler for Probe {
    const SUBSCRIBER: &'static str = "probe-service";
    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        handle(event, cx, Self::SUBSCRIBER).await
    }
}

struct Other;
impl Handler for Other {
    const SUBSCRIBER: &'static str = "other-service";
    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        handle(event, cx, Self::SUBSCRIBER).await
    }
}

/// Not a test: what the test program does when it is asked to be a worker.
#[test]
fn process() {
    let Ok(subscriber) = std::env::var("PROBE_SUBSCRIBER") else {
        return;
    };
    telemetry::init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(async {
        let config = Config::load(std::env::var("STREAMFLEET_CONFIG").unwrap().as_ref()).unwrap();
        let reloader = Reloader::new(config);
        tokio::spawn(Arc::clone(&reloader).run());
        let stop = Stop::default();
        tokio::spawn(stop_on_signal(stop.reading.clone(), stop.now.clone()));
        let options = WorkerOptions {
            redis: Redis::open(&url()).unwrap(),
            config: reloader.subscribe(),
            name: std::env::var("PROBE_NAME").ok(),
            drain: Duration::from_secs(
                std::env::var("PROBE_DRAIN").map_or(10, |s| s.parse().unwrap()),
            ),
            stop,
            ready: Box::new(|| {}),
        };
        match subscriber.as_str() {
            "probe-service" => worker::run(Probe, options).await,
            _ => worker::run(Other, options).await,
        }
    });
    if let Err(error) = &ended {
        tracing::error!("{error}");
    }
    std::process::exit(i32::from(ended.is_err()));
}
