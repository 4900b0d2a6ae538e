//! A worker whose handler does what each event tells it to. Tests start it as a process of its
//! own (this test program, asked to be a worker), so that it can be killed and stopped.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Deserialize;
use streamfleet::process::{Reloader, Watch, stop_on_signal, telemetry};
use streamfleet::progress::Progress;
use streamfleet::routing::Config;
use streamfleet::store::Redis;
use streamfleet::worker::{self, Stop, WorkerOptions};
use streamfleet::{Context, Event, Handler, HandlerError, NewEvent};

#[derive(Deserialize)]
struct Data {
    #[serde(default, rename = "do")]
    action: String,
    #[serde(default)]
    ms: u64,
    /// The event of which this one is the follow-up.
    parent: Option<String>,
    #[serde(default)]
    text: String,
}

/// Has two effects: counts how often each event was handled in `<subscriber>:handled`, and logs
/// it in the stream `<subscriber>:log`. Outside of the commit it tells the witness of each start
/// and each end.
async fn handle(event: &Event, cx: &mut Context, subscriber: &str) -> Result<(), HandlerError> {
    let witness = Witness::of(subscriber, event, cx);
    witness.saw("start");
    let data: Data = event.data()?;
    let pause = tokio::time::sleep(Duration::from_millis(data.ms));
    let last = cx.attempt() >= 3;
    match data.action.as_str() {
        "fail" => return Err(HandlerError::retry("told to fail")),
        "fail twice" if !last => return Err(HandlerError::retry("told to fail twice")),
        "say" => return Err(HandlerError::reject(data.text)),
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
        // What it needs is there unless the test has made it a member of `down`.
        "need" => {
            pause.await;
            if cx.is_member("down", &data.text).await? {
                let down = format!("{} is down", data.text);
                return Err(HandlerError::unavailable(down));
            }
        }
        "fail, then block" if cx.attempt() == 1 => {
            return Err(HandlerError::retry("told to fail, then to block"));
        }
        "block" | "fail, then block" => std::thread::sleep(Duration::from_millis(data.ms)),
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
        "follow" => {
            cx.publish("Test.Followed", &serde_json::json!({"parent": event.id()}))?;
        }
        "follow and fail" => {
            cx.publish("Test.Followed", &serde_json::json!({"parent": event.id()}))?;
            return Err(HandlerError::retry("after asking for a follow-up"));
        }
        "schedule" => {
            let at = jiff::Timestamp::now() + Duration::from_millis(data.ms);
            let parent = serde_json::json!({"parent": event.id()});
            let id = cx.publish_at("Test.Followed", &parent, at)?;
            cx.set("scheduled", id.to_string())?;
        }
        "cancel" => cx.cancel_scheduled(data.text.parse()?)?,
        "cancel and reject" => {
            cx.cancel_scheduled(data.text.parse()?)?;
            return Err(HandlerError::reject("after asking to cancel"));
        }
        "loop" => {
            cx.publish("Test.Looped", &serde_json::json!({"do": "loop"}))?;
        }
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
        "exact" => keep_exactly(event, cx)?,
        greedy => ask_for_too_much(greedy, cx)?,
    }
    let (id, attempt) = (event.id().to_string(), cx.attempt().to_string());
    let parent = data.parent.unwrap_or_default();
    cx.hash_increment("handled", &id, 1)?;
    cx.append(
        "log",
        &[("id", &id), ("attempt", &attempt), ("parent", &parent)],
    )?;
    witness.saw("end");
    Ok(())
}

/// Notes the numbers as this process sees them.
fn keep_exactly(event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
    #[derive(Deserialize)]
    struct Numbers {
        #[serde(with = "streamfleet::money")]
        amount: rust_decimal::Decimal,
        n: u64,
    }
    let Numbers { amount, n } = event.data()?;
    cx.hash_set("exact", "amount", amount.to_string())?;
    cx.hash_set("exact", "n", n.to_string())?;
    cx.hash_set("exact", "text", event.data_text())?;
    Ok(())
}

/// More than one commit may carry, in each way in which it can be too much.
fn ask_for_too_much(how: &str, cx: &mut Context) -> Result<(), HandlerError> {
    let follow_up = |text: &str| serde_json::json!({"do": "nothing", "text": text});
    match how {
        "too many effects" => (0..=10_000).try_for_each(|n| cx.set(&format!("k{n}"), "v"))?,
        "too large effects" => cx.set("large", vec![b'x'; 9 << 20])?,
        "too many follow-ups" => {
            for _ in 0..=10_000 {
                cx.publish("Test.Happened", &follow_up(""))?;
            }
        }
        "too large follow-up" => {
            cx.publish("Test.Happened", &follow_up(&"x".repeat(2 << 20)))?;
        }
        "bad key" => cx.set("a\r\nb", "v")?,
        "long key" => cx.set(&"k".repeat(100_000), "v")?,
        "bad entity" => {
            cx.append_events("a:{b}", "\u{1b}[2J", 0, &[NewEvent::new("Done", &())?])?
        }
        _ => {}
    }
    Ok(())
}

fn url() -> String {
    std::env::var("PROBE_URL").unwrap()
}

/// What an outside world sees of a handler, whatever Redis thinks of it: a line per start and
/// per end in the file `PROBE_WITNESS`. Without such a file, starts are counted in
/// `<subscriber>:started`, at once and directly.
struct Witness {
    subscriber: String,
    line: String,
    event: String,
}

impl Witness {
    fn of(subscriber: &str, event: &Event, cx: &Context) -> Self {
        let (event, attempt, key) = (event.id().to_string(), cx.attempt(), cx.idempotency_key());
        Self {
            line: format!("{subscriber} {event} {attempt} {key}"),
            subscriber: subscriber.to_owned(),
            event,
        }
    }

    fn saw(&self, what: &str) {
        static FILE: LazyLock<Option<File>> = LazyLock::new(|| {
            let path = std::env::var_os("PROBE_WITNESS")?;
            Some(
                File::options()
                    .append(true)
                    .create(true)
                    .open(path)
                    .unwrap(),
            )
        });
        match FILE.as_ref() {
            // One write per line: processes share the file.
            Some(mut file) => file
                .write_all(format!("{} {what}\n", self.line).as_bytes())
                .unwrap(),
            None if what == "start" => directly(
                redis::cmd("HINCRBY")
                    .arg(format!("{}:started", self.subscriber))
                    .arg(&self.event)
                    .arg(1),
            ),
            None => {}
        }
    }
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

/// Not a test: how the test program becomes a worker when it is asked to.
#[test]
fn process() {
    if let Ok(subscriber) = std::env::var("PROBE_SUBSCRIBER") {
        run(&subscriber);
    }
}

/// Is a worker of `subscriber` until told to stop.
pub fn run(subscriber: &str) -> ! {
    telemetry::init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(async {
        let config = Config::load(std::env::var("STREAMFLEET_CONFIG").unwrap().as_ref()).unwrap();
        let redis = Redis::open(&url()).unwrap();
        let reloader = Reloader::new(config, Watch::On, redis.link());
        tokio::spawn(Arc::clone(&reloader).run());
        let stop = Stop::default();
        tokio::spawn(stop_on_signal(stop.reading.clone(), stop.now.clone()));
        let options = WorkerOptions {
            in_force: reloader.in_force(),
            redis,
            config: reloader.subscribe(),
            subscriber: subscriber.to_owned(),
            rebuild: None,
            name: std::env::var("PROBE_NAME").ok(),
            drain: Duration::from_secs(
                std::env::var("PROBE_DRAIN").map_or(10, |s| s.parse().unwrap()),
            ),
            stop,
            ready: Box::new(|| {}),
            progress: Progress::default(),
        };
        match subscriber {
            "probe-service" => worker::run(Probe, options).await,
            _ => worker::run(Other, options).await,
        }
    });
    if let Err(error) = &ended {
        tracing::error!("{error}");
    }
    std::process::exit(i32::from(ended.is_err()));
}
