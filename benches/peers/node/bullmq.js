// BullMQ on Redis, with ioredis.
//
//     bullmq.js produce PORT COUNT FILE QUEUE...
//     bullmq.js consume PORT COUNT QUEUE GROUP
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Queue, Worker } from 'bullmq';

const [role, port, size, ...rest] = process.argv.slice(2);
const count = Number(size);
// Workers need maxRetriesPerRequest: null.
const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };

// Each round starts with a line from the runner, and ends with one to it.
async function rounds(round) {
  console.log('ready');
  for await (const _ of createInterface({ input: process.stdin })) {
    console.log(`done ${await round()}`);
  }
}

async function produce(file, ...names) {
  const events = readFileSync(file, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
  const queues = names.map((name) => new Queue(name, {
    connection,
    // Its guide on auto-removal: else every job is kept for ever.
    defaultJobOptions: { removeOnComplete: true },
  }));
  await Promise.all(queues.map((queue) => queue.waitUntilReady()));
  let from = 0;
  await rounds(async () => {
    const to = Math.min(from + count, events.length);
    const published = to - from;
    // Its guide on adding jobs in bulk.
    for (; from < to; from += 1000) {
      const jobs = events.slice(from, Math.min(from + 1000, to)).map((data) => ({ name: 'order', data }));
      for (const queue of queues) await queue.addBulk(jobs);
    }
    return published;
  });
  await Promise.all(queues.map((queue) => queue.close()));
}

async function consume(name) {
  await rounds(() => new Promise((resolve, reject) => {
    let handled = 0;
    const worker = new Worker(name, async () => {
      handled += 1;
      // close() waits for what is being worked on, and its completion is the acknowledgement.
      if (handled === count) setImmediate(() => worker.close().then(() => resolve(handled), reject));
    }, {
      connection,
      // Its guide on concurrency, and what its own benchmark runs with.
      concurrency: 100,
    });
    worker.on('error', reject);
  }));
}

await (role === 'produce' ? produce(...rest) : consume(...rest));
