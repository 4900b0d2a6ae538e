//! apalis on Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use serde_json::Value;
use streamfleet_peers::{Result, Role, Rounds, Task as Order};

/// Jobs in one call: its queries are scripts that take a batch.
const BATCH: usize = 1_000;

struct Handled {
    count: AtomicUsize,
    of: usize,
}

async fn handle(_: Value, handled: Data<Arc<Handled>>, worker: WorkerContext) -> Result<()> {
    if handled.count.fetch_add(1, Ordering::Relaxed) + 1 == handled.of {
        worker.stop()?;
    }
    Ok(())
}

/// Its documentation of `Config`: larger batches "improve throughput", locks "can be turned off for
/// tasks that last shorter than a worker heartbeat"; nobody listens to its events. Results stay
/// on: without them it does not acknowledge.
fn config(queue: &str) -> Config {
    Config::default()
        .queue(queue)
        .batch_size(BATCH)
        .lock_tasks(false)
        .emit_events(false)
}

#[tokio::main]
async fn main() -> Result<()> {
    let Order { url, count, role } = Order::from_args()?;
    let connection = apalis_redis::connect(url).await?;
    let storage =
        |queue: &str| RedisStorage::<Value>::new(connection.clone()).with_config(config(queue));
    match role {
        Role::Produce { events, queues } => {
            let events = events
                .iter()
                .map(|event| serde_json::from_str(event))
                .collect::<std::result::Result<Vec<Value>, _>>()?;
            let mut storages: Vec<_> = queues.iter().map(|queue| storage(queue)).collect();
            let mut rounds = Rounds::ready();
            let mut all = events.chunks(count);
            while rounds.next().await? {
                let round = all.next().ok_or("no more events")?;
                for batch in round.chunks(BATCH) {
                    for storage in &mut storages {
                        storage.push_bulk(batch.to_vec()).await?;
                    }
                }
                rounds.done(round.len());
            }
        }
        Role::Consume { queue, .. } => {
            let mut rounds = Rounds::ready();
            let mut round = 0;
            while rounds.next().await? {
                round += 1;
                let handled = Arc::new(Handled {
                    count: AtomicUsize::new(0),
                    of: count,
                });
                WorkerBuilder::new(format!("worker-{round}"))
                    .backend(storage(&queue))
                    .data(handled.clone())
                    .build(handle)
                    .run()
                    .await?;
                rounds.done(handled.count.load(Ordering::Relaxed));
            }
        }
    }
    Ok(())
}
