// A normal life of BullMQ: bullmq.js PORT WORKERS JOBS
"use strict";

const assert = require("node:assert/strict");
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");
const { run, waitUntil } = require("./checks.js");

const [port, workerCount, jobCount] = process.argv.slice(2).map(Number);
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const QUEUES = 5;

/** How often each job's work was done to its end, by its id. */
const done = new Map();
const errors = [];

async function work(job) {
  if (job.data.fails && job.attemptsMade === 0) throw new Error("the first try fails");
  if (job.name === "parent") {
    const children = await job.getChildrenValues();
    assert.deepEqual(Object.values(children).sort(), [1, 2]);
  }
  await job.updateProgress(50);
  done.set(job.id, (done.get(job.id) ?? 0) + 1);
  return job.data.value ?? null;
}

/** Plain jobs, delayed ones, urgent ones, and ones whose first try fails. */
function job(number) {
  const options = [
    {},
    { delay: 200 + number },
    { priority: 1 + (number % 3) },
    { attempts: 3, backoff: { type: "fixed", delay: 100 } },
  ][number % 4];
  const data = { value: number, fails: number % 4 === 3 };
  return { name: "plain", data, opts: { ...options, jobId: `job-${number}` } };
}

async function aLife() {
  const queues = [];
  const events = [];
  const completed = new Map();
  for (let number = 0; number < QUEUES; number += 1) {
    const queue = new Queue(`queue-${number}`, { connection });
    queue.on("error", (error) => errors.push(error));
    queues.push(queue);
    const listener = new QueueEvents(queue.name, { connection });
    listener.on("error", (error) => errors.push(error));
    listener.on("completed", ({ jobId }) => completed.set(jobId, (completed.get(jobId) ?? 0) + 1));
    events.push(listener);
  }
  await Promise.all(events.map((listener) => listener.waitUntilReady()));
  const workers = [];
  for (let number = 0; number < workerCount; number += 1) {
    const worker = new Worker(queues[number % QUEUES].name, work, { connection });
    worker.on("error", (error) => errors.push(error));
    workers.push(worker);
  }
  await Promise.all(workers.map((worker) => worker.waitUntilReady()));

  const ids = new Set();
  const adding = [];
  for (let number = 0; number < jobCount; number += 1) {
    const { name, data, opts } = job(number);
    ids.add(opts.jobId);
    const queue = queues[number % QUEUES];
    if (number % 2 === 0) adding.push(queue.add(name, data, opts));
    else adding.push(queue.addBulk([{ name, data, opts }]));
  }
  await Promise.all(adding);
  const flows = new FlowProducer({ connection });
  const child = (number) => ({
    name: "child",
    queueName: queues[number].name,
    data: { value: number },
    opts: { jobId: `child-${number}` },
  });
  await flows.add({
    name: "parent",
    queueName: queues[0].name,
    opts: { jobId: "parent" },
    children: [child(1), child(2)],
  });
  ["parent", "child-1", "child-2"].forEach((id) => ids.add(id));

  // A job's result as its sender waits for it, by QueueEvents.
  const waited = await queues[0].add("waited", { value: 42 }, { jobId: "waited" });
  ids.add("waited");
  assert.equal(await waited.waitUntilFinished(events[0]), 42);

  await waitUntil("all is done", () => done.size === ids.size);
  await waitUntil("all events have come", () => completed.size === ids.size);
  // A second time would have come by now, or shows in Redis's own counts.
  for (const id of ids) {
    assert.equal(done.get(id), 1, id);
    assert.equal(completed.get(id), 1, `events of ${id}`);
  }
  let kept = 0;
  for (const queue of queues) {
    const counts = await queue.getJobCounts();
    kept += counts.completed;
    const others = { ...counts, completed: 0 };
    assert.ok(Object.values(others).every((count) => count === 0), JSON.stringify(counts));
  }
  assert.equal(kept, ids.size);
  assert.deepEqual(errors, []);

  await Promise.all(workers.map((worker) => worker.close()));
  await Promise.all([...events, ...queues, flows].map((each) => each.close()));
}

run([aLife]);
