//! sea-streamer on Redis Streams.

use sea_streamer_redis::{AutoCommit, AutoStreamReset, RedisConsumerOptions, RedisStreamer};
use sea_streamer_types::{
    Consumer, ConsumerGroup, ConsumerMode, ConsumerOptions, Producer, StreamKey, Streamer,
};
use streamfleet_peers::{Result, Role, Rounds, Task};

#[tokio::main]
async fn main() -> Result<()> {
    let Task { url, count, role } = Task::from_args()?;
    let streamer = RedisStreamer::connect(url.parse()?, Default::default()).await?;
    match role {
        Role::Produce { events, queues } => {
            let keys = queues
                .iter()
                .map(StreamKey::new)
                .collect::<std::result::Result<Vec<_>, _>>()?;
            let mut producer = streamer.create_generic_producer(Default::default()).await?;
            let mut rounds = Rounds::ready();
            let mut batches = events.chunks(count);
            while rounds.next().await? {
                let batch = batches.next().ok_or("no more events")?;
                // Its README: pipelined XADD. `send_to` queues, and all that is queued is one pipeline.
                for event in batch {
                    for key in &keys {
                        drop(producer.send_to(key, event.as_str())?);
                    }
                }
                producer.flush().await?;
                rounds.done(batch.len());
            }
        }
        Role::Consume { queue, group } => {
            // LoadBalanced: a group, with failover. Rolling: "the recommended option for
            // achieving at-least-once"; acknowledges what the handler is done with, once a second.
            let mut options = RedisConsumerOptions::new(ConsumerMode::LoadBalanced);
            options.set_consumer_group(ConsumerGroup::new(group))?;
            options.set_auto_stream_reset(AutoStreamReset::Earliest);
            options.set_auto_commit(AutoCommit::Rolling);
            // "A larger N would reduce the number of roundtrips."
            options.set_batch_size(100);
            let mut rounds = Rounds::ready();
            while rounds.next().await? {
                let consumer = streamer
                    .create_consumer(&[StreamKey::new(&queue)?], options.clone())
                    .await?;
                let mut handled = 0;
                while handled < count {
                    let message = consumer.next().await?;
                    handled += 1;
                    consumer.ack(&message)?;
                }
                rounds.done(handled);
                // Sends the last acknowledgements, once its read of 10 s has ended.
                consumer.end().await?;
            }
        }
    }
    Ok(())
}
