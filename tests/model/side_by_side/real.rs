//! The steps on a real Redis, through the product's own functions.

use std::collections::BTreeMap;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, FromRedisValue, Value};
use streamfleet::store as product;
use streamfleet::store::transact::{Opened, Ready, Transactions};
use streamfleet::store::{
    Asked, CommitRequest, Committed, EntryId, Fence, Fields, Holder, Parked, RELEASED, RETRY,
    RouteBatch, Routed, Scope, Settled,
};

use super::super::scripts::{Answer, Call, Request};
use super::super::store::{Content, Due, Event, Id, Owner, Queue, Reason};
use super::{QUEUES, Said, consumer};
use crate::support::Server;

pub(super) const LEASE: u64 = 30_000;
/// A delay that ends in no test.
const FAR_AWAY: u64 = 3_600_000;
pub(super) const SEEN: &str = "seen:1";
pub(super) const DEAD_ROUTER: &str = "dead:router";

/// A Redis, and the IDs that it gave, by which the model's IDs count.
pub(super) struct Real {
    _server: Server,
    pub(super) redis: MultiplexedConnection,
    transactions: Transactions,
    pub(super) ids: BTreeMap<String, Vec<EntryId>>,
    pub(super) letters: Vec<(String, EntryId)>,
}

pub(super) fn stream(queue: Queue) -> String {
    match queue {
        Queue::Inbox => "inbox".into(),
        Queue::Domain(_) => "order-events".into(),
        Queue::Redrive(of) => format!("redrive:{of}-service"),
    }
}

pub(super) fn group(queue: Queue) -> String {
    match queue {
        Queue::Inbox => "router".into(),
        Queue::Domain(of) | Queue::Redrive(of) => format!("{of}-service"),
    }
}

pub(super) fn holder(queue: Queue, name: u8) -> Holder {
    let (stream, group) = (stream(queue), group(queue));
    Holder {
        attempts: format!("attempts:{stream}:{group}"),
        stats: format!("stats:{group}"),
        consumer: consumer_name(name),
        delete_settled: matches!(queue, Queue::Redrive(_)),
        stream,
        group,
    }
}

fn consumer_name(name: u8) -> String {
    format!("w{name}.0000000{name}")
}

fn owner_name(owner: Owner) -> String {
    match owner {
        Owner::Retry => RETRY.into(),
        Owner::Released => RELEASED.into(),
        Owner::Process(consumer) => consumer_name(consumer.name),
    }
}

pub(super) fn owner_of(name: &str) -> Owner {
    match name {
        RETRY => Owner::Retry,
        RELEASED => Owner::Released,
        name => Owner::Process(consumer(name[1..2].parse().unwrap())),
    }
}

/// The bytes of an event: `<event>:<content>`.
fn event_bytes(event: Event, content: Content) -> String {
    format!("{event}:{content:?}")
}

fn read_content(text: &str) -> Content {
    [Content::Original, Content::Altered, Content::Invalid]
        .into_iter()
        .find(|c| format!("{c:?}") == text)
        .unwrap()
}

pub(super) fn read_event(text: &str) -> (Event, Content) {
    let (event, content) = text.split_once(':').unwrap();
    (event.parse().unwrap(), read_content(content))
}

fn fields(pairs: &[(&str, String)]) -> Fields {
    let pair =
        |(name, value): &(&str, String)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    Fields(pairs.iter().map(pair).collect())
}

pub(super) fn command(line: &str) -> Cmd {
    let mut words = line.split_whitespace();
    let mut command = ::redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    command
}

/// A log of so many failures.
fn log(failures: u8) -> String {
    format!("{:?}", vec![1; usize::from(failures)])
}

pub(super) fn failures(log: &str) -> u8 {
    serde_json::from_str::<Vec<u8>>(log).map_or(0, |list| list.len() as u8)
}

fn batch<'a>(
    inbox: &'a Holder,
    seen: &'a [String],
    targets: &'a [String],
    entries: &'a [(Fence, Routed)],
) -> RouteBatch<'a> {
    RouteBatch {
        inbox,
        dead: DEAD_ROUTER,
        seen,
        seen_ttl_ms: 600_000,
        targets,
        scheduled: ["scheduled", "scheduled:events"],
        now: "2026-01-01T00:00:00Z",
        entries,
        contiguous: false,
        audit: None,
    }
}

fn routed(request: &Request) -> Routed {
    match request.entry.content {
        Content::Invalid => {
            let reason = format!("{:?}", Reason::Refused);
            Routed::Dead(fields(&[
                ("id", request.entry.event.to_string()),
                ("reason", reason),
            ]))
        }
        content => Routed::Append {
            event_id: request.entry.event.to_string(),
            content: format!("{content:?}"),
            target: 0,
            event_type: "Order.Created".into(),
            to: "0-service,1-service".into(),
            hops: 0,
            event: event_bytes(request.entry.event, content).into_bytes(),
        },
    }
}

impl Real {
    pub(super) async fn start() -> Self {
        let server = Server::with(&["--appendonly", "no"]);
        // Patient: a loaded machine is no fault.
        let redis = product::Redis::open(&server.url()).unwrap();
        let connect = || redis.dedicated(Duration::from_secs(60));
        let transactions = Transactions::on(connect().await.unwrap()).await.unwrap();
        let redis = connect().await.unwrap();
        Self {
            transactions,
            _server: server,
            redis,
            ids: BTreeMap::new(),
            letters: Vec::new(),
        }
    }

    pub(super) async fn reset(&mut self) {
        self.ids.clear();
        self.letters.clear();
        self.run::<Value>("FLUSHALL").await;
        for queue in QUEUES {
            let create = format!(
                "XGROUP CREATE {} {} 0 MKSTREAM",
                stream(queue),
                group(queue)
            );
            self.run::<Value>(&create).await;
        }
    }

    async fn run<T: FromRedisValue>(&mut self, line: &str) -> T {
        let answer = command(line).query_async(&mut self.redis).await;
        answer.unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// The ID that Redis gave to the model's entry; one beyond the last for the next.
    fn entry_id(&self, stream: &str, id: Id) -> EntryId {
        let ids = self.ids.get(stream).map(Vec::as_slice).unwrap_or_default();
        match ids.get(usize::from(id) - 1) {
            Some(known) => *known,
            None => ids
                .last()
                .map_or(EntryId { ms: 0, seq: 1 }, |last| EntryId {
                    seq: last.seq + 1,
                    ..*last
                }),
        }
    }

    pub(super) fn model_id(&self, stream: &str, id: EntryId) -> Id {
        let known = self
            .ids
            .get(stream)
            .and_then(|ids| ids.iter().position(|known| *known == id));
        known.map_or(0, |at| at as Id + 1)
    }

    pub(super) async fn publish(&mut self, event: Event, content: Content) -> Said {
        self.run::<Value>(&format!(
            "XADD inbox * event {}",
            event_bytes(event, content)
        ))
        .await;
        Said::Nothing
    }

    pub(super) async fn read(&mut self, queue: Queue, by: u8) -> Said {
        let (stream, group, by) = (stream(queue), group(queue), consumer_name(by));
        let line = format!("XREADGROUP GROUP {group} {by} COUNT 1 STREAMS {stream} >");
        let streams = product::read_streams(self.run(&line).await).unwrap();
        let entries = streams.into_iter().flat_map(|(_, entries)| entries);
        Said::Handed(
            entries
                .map(|entry| (self.model_id(&stream, entry.id), 1, None, 0))
                .collect(),
        )
    }

    pub(super) async fn reclaim(
        &mut self,
        queue: Queue,
        by: u8,
        parked_only: bool,
        limit: usize,
    ) -> Said {
        let holder = holder(queue, by);
        let scope = if parked_only {
            Scope::Parked
        } else {
            Scope::All
        };
        let reclaimed = holder
            .reclaim(&mut self.redis, scope, LEASE, limit)
            .await
            .unwrap();
        let row = |c: &product::Claimed| {
            let starts = c.starts.map(|n| n as u8);
            (
                self.model_id(&holder.stream, c.fence.id),
                c.fence.count as u8,
                starts,
                failures(&c.log),
            )
        };
        let rows = reclaimed.claimed.iter().map(row).collect();
        Said::Reclaimed(rows, reclaimed.lost.len(), reclaimed.parked_again)
    }

    fn fence(&self, request: &Request) -> Fence {
        let claim = &request.claim;
        let id = self.entry_id(&stream(claim.queue), claim.id);
        Fence {
            id,
            count: claim.count.into(),
        }
    }

    /// A fenced script; of routing perhaps several entries at once.
    pub(super) async fn fenced(&mut self, requests: &[Request]) -> Said {
        let [request, ..] = requests else {
            panic!("nothing to run")
        };
        let holder = holder(request.claim.queue, request.claim.consumer.name);
        let (fence, troubled) = (self.fence(request), request.troubled);
        let redis = &mut self.redis;
        let first = |answers: Vec<Settled>| answers[0];
        let settled = match request.call {
            Call::Mark { starts } => holder.mark_started(redis, fence, starts.into()).await,
            Call::Ack => holder.ack(redis, &[(fence, troubled)]).await.map(|counts| {
                match (counts.done, counts.gone, counts.fenced) {
                    (1, 0, 0) => Settled::Done,
                    (0, 1, 0) => Settled::Gone,
                    (0, 0, 1) => Settled::Fenced,
                    _ => panic!("{counts:?} of one delivery"),
                }
            }),
            Call::Renew => holder.renew(redis, &[fence]).await.map(first),
            Call::Park(park) => {
                let starts = park.starts.map(u32::from);
                if park.to == Owner::Released {
                    holder.release(redis, &[(fence, starts)]).await.map(first)
                } else {
                    let delay_ms = if park.due == Due::Now { 0 } else { FAR_AWAY };
                    let log = park.failures.map(log).unwrap_or_default();
                    let parked = [Parked {
                        fence,
                        delay_ms,
                        log,
                        starts,
                    }];
                    holder.retry_later(redis, LEASE, &parked).await.map(first)
                }
            }
            Call::DeadLetter(reason) => {
                let letter = fields(&[
                    ("id", request.entry.event.to_string()),
                    ("reason", format!("{reason:?}")),
                ]);
                let dead = format!("dead:{}", holder.group);
                holder.dead_letter(redis, fence, &dead, &letter).await
            }
            Call::Commit { follow_up } => {
                // No conditions; one effect; perhaps a follow-up.
                let event = request.entry.event.to_string();
                let mut values = vec!["HINCRBY 2".into(), event.into(), "1".into()];
                if let Some(event) = follow_up {
                    let json = event_bytes(event, Content::Original);
                    values.extend([json.into(), b"1".to_vec()]);
                }
                let request = CommitRequest {
                    fence,
                    troubled,
                    asked: Asked {
                        conditions: 0,
                        effects: 1,
                        follow_ups: follow_up.iter().count(),
                        keys: vec![format!("{}:effects", holder.group)],
                        values,
                        ..Asked::default()
                    },
                };
                let committed = holder.commit(redis, "inbox", &[request.into()]).await;
                committed.map(|committed| match &committed[..] {
                    [Committed::Settled(settled)] => *settled,
                    other => panic!("{other:?}"),
                })
            }
            Call::Route => return self.route(&holder, requests).await,
            Call::Write => panic!("a transaction is begun first"),
            Call::Bare(_) => panic!("only mutants write without a fence"),
        };
        Said::Settled(match settled.unwrap() {
            Settled::Done => Answer::Held,
            Settled::Gone => Answer::Gone,
            Settled::Fenced => Answer::Fenced,
            Settled::Lost => Answer::Lost,
        })
    }

    async fn route(&mut self, inbox: &Holder, requests: &[Request]) -> Said {
        let entries: Vec<_> = requests
            .iter()
            .map(|r| (self.fence(r), routed(r)))
            .collect();
        let (seen, targets) = ([SEEN.into()], [stream(Queue::Domain(0))]);
        let batch = batch(inbox, &seen, &targets, &entries);
        let counts = product::route(&mut self.redis, &batch).await.unwrap();
        Said::Fenced(counts.fenced as usize)
    }

    /// Begins a transaction, if its check finds all as it should be.
    pub(super) async fn open(&mut self, request: &Request) -> Option<Ready> {
        let inbox = holder(Queue::Inbox, request.claim.consumer.name);
        let entries = [(self.fence(request), routed(request))];
        let (seen, targets) = ([SEEN.into()], [stream(Queue::Domain(0))]);
        let batch = batch(&inbox, &seen, &targets, &entries);
        match self.transactions.open(&batch).await.unwrap() {
            Opened::Clean(ready) => Some(ready),
            Opened::Doubtful(_) => None,
        }
    }

    pub(super) async fn take_over(&mut self, queue: Queue, of: u8) -> Said {
        let holder = holder(queue, 1 - of);
        holder
            .take_over(&mut self.redis, &consumer_name(of), 100)
            .await
            .unwrap();
        Said::Nothing
    }

    pub(super) async fn drop_consumer(&mut self, queue: Queue, of: u8) -> Said {
        let holder = holder(queue, of);
        holder
            .drop_consumer(&mut self.redis, &holder.consumer)
            .await
            .unwrap();
        Said::Nothing
    }

    pub(super) async fn freeze(&mut self, queue: Queue, id: Id, owner: Owner) -> Said {
        let (stream, group, owner) = (stream(queue), group(queue), owner_name(owner));
        let id = self.entry_id(&stream, id);
        self.run::<Value>(&format!(
            "XCLAIM {stream} {group} {owner} 0 {id} IDLE {LEASE} JUSTID"
        ))
        .await;
        Said::Nothing
    }

    pub(super) async fn redrive(&mut self, letter: Id, event: Event) -> Said {
        let (dead, id) = self.letters[usize::from(letter) - 1].clone();
        let target = match dead.strip_prefix("dead:") {
            Some("router") | None => "inbox".to_owned(),
            Some(subscriber) => format!("redrive:{subscriber}"),
        };
        let entry = fields(&[("event", event_bytes(event, Content::Original))]);
        let moved = product::redrive(&mut self.redis, &dead, &target, id, &entry).await;
        Said::Redriven(moved.unwrap())
    }

    pub(super) async fn trim(&mut self, maxlen: Option<usize>, oldest: Option<Id>) -> Said {
        let stream = stream(Queue::Domain(0));
        let oldest = oldest.map(|id| self.entry_id(&stream, id));
        let groups = [group(Queue::Domain(0)), group(Queue::Domain(1))];
        let maxlen = maxlen.map(|n| n as u64);
        product::trim(&mut self.redis, &stream, maxlen, oldest, 100, &groups)
            .await
            .unwrap();
        Said::Nothing
    }

    pub(super) async fn delete(&mut self, queue: Queue, id: Id) -> Said {
        let stream = stream(queue);
        let id = self.entry_id(&stream, id);
        self.run::<Value>(&format!("XDEL {stream} {id}")).await;
        Said::Nothing
    }
}
