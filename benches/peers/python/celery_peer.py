"""Celery on Redis, with hiredis.

Its user guide, "Optimizing": many short tasks want a large prefetch multiplier, 64 or 128. Results,
events, gossip and mingle, which nobody here looks at, are off.
"""

import multiprocessing
import os

import rounds
from celery import Celery
from celery.signals import worker_ready
from kombu import Exchange, Queue

app = Celery("peer", broker=f"redis://127.0.0.1:{rounds.port}")
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_serializer="json",
    worker_prefetch_multiplier=128,
    worker_redirect_stdouts=False,
)
handled = multiprocessing.Value("l", 0)


@app.task(name="order")
def order(_):
    with handled.get_lock():
        handled.value += 1
        if handled.value == rounds.count:
            os.write(1, b"done %d\n" % handled.value)


def produce():
    events, names = rounds.events(), rounds.rest[1:]
    with app.producer_pool.acquire(block=True) as producer:
        route = {"queue": names[0]}
        if len(names) > 1:
            # Its guide on routing: an exchange puts one message into every queue that is bound to it.
            orders = Exchange("orders", type="direct")
            for name in names:
                Queue(name, orders, routing_key="orders")(producer.channel).declare()
            route = {"exchange": orders, "routing_key": "orders"}
        rounds.ready()
        published = 0
        while rounds.wait():
            batch = events[published:published + rounds.count]
            published += len(batch)
            # kombu's Producer.batch: many messages in one pipeline.
            with producer.batch(1000):
                for event in batch:
                    order.apply_async((event,), producer=producer, **route)
            rounds.done(len(batch))


def consume():
    # After this returns, the worker begins to read.
    @worker_ready.connect(weak=False)
    def begin(**_):
        rounds.ready()
        rounds.wait()

    # For a task that does nothing, solo took the least time here, before prefork and threads.
    app.worker_main([
        "worker", "--queues", rounds.rest[0], "--pool", "solo", "--loglevel", "WARNING",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ])


produce() if rounds.role == "produce" else consume()
