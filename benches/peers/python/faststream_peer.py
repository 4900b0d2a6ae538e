"""FastStream on Redis Streams, on uvloop, with hiredis.

Type casting and the log line for each message, which it can do without, are off.
"""

import asyncio

import rounds
import uvloop
from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub

PIPELINE = 1000


def broker():
    return RedisBroker(f"redis://127.0.0.1:{rounds.port}", apply_types=False, logger=None)


async def produce():
    events, streams = rounds.events(), rounds.rest[1:]
    async with broker() as publisher:
        client = await publisher.connect()
        rounds.ready()
        published = 0
        while rounds.wait():
            batch = events[published:published + rounds.count]
            published += len(batch)
            # Its documentation, "Redis Pipeline": many messages in one round trip.
            for start in range(0, len(batch), PIPELINE):
                async with client.pipeline(transaction=False) as pipe:
                    for event in batch[start:start + PIPELINE]:
                        for stream in streams:
                            await publisher.publish(event, stream=stream, pipeline=pipe)
                    await pipe.execute()
            rounds.done(len(batch))


async def consume(batch):
    stream, group = rounds.rest
    subscriber = broker()
    handled, finished = 0, asyncio.Event()

    def count(events):
        nonlocal handled
        handled += events
        if handled >= rounds.count:
            finished.set()

    # A new group starts at last_id; ACK acknowledges after the handler.
    read = {"group": group, "consumer": "one", "last_id": "0", "polling_interval": 1000}
    if batch:
        sub = StreamSub(stream, **read, batch=True, max_records=100)

        @subscriber.subscriber(stream=sub, ack_policy=AckPolicy.ACK)
        async def handle_all(messages):
            count(len(messages))
    else:
        # One after the other: for a handler that does nothing, max_workers 10 and 100 took longer.
        sub = StreamSub(stream, **read, max_records=100)

        @subscriber.subscriber(stream=sub, ack_policy=AckPolicy.ACK)
        async def handle(_):
            count(1)

    await subscriber.connect()
    rounds.ready()
    while rounds.wait():
        handled = 0
        finished.clear()
        await subscriber.start()
        await finished.wait()
        # Waits for what is being acknowledged.
        await subscriber.stop()
        rounds.done(handled)


if __name__ == "__main__":
    uvloop.run(produce() if rounds.role == "produce" else consume(rounds.role == "consume-batch"))
