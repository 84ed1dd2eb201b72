// BullMQ: queues, workers, events, flows, delays, priorities, retries, schedules, rate limits.
import { strict as assert } from "node:assert";
import { FlowProducer, Queue, QueueEvents, Worker } from "bullmq";
import { Redis } from "ioredis";

const PATIENCE_MS = 60_000;
const url = process.env.REDIS_URL;
const connect = () => new Redis(url, { maxRetriesPerRequest: null });
const connections = [connect(), connect(), connect(), connect()];
const [first, second, third, fourth] = connections;

const eventually = async (what, condition) => {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    assert(Date.now() < deadline, `never happened: ${what}`);
    await new Promise((done) => setImmediate(done));
  }
};

const queue = new Queue("work", { connection: first });
const events = new QueueEvents("work", { connection: second });
await events.waitUntilReady();
const order = [];
const work = async (job) => {
  order.push(job.name);
  if (job.name === "fails") throw new Error("as it should");
  if (job.name === "second-time" && job.attemptsMade < 1) throw new Error("once");
  if (job.name === "progress") await job.updateProgress(50);
  if (job.name === "parent") return Object.values(await job.getChildrenValues()).sort();
  return job.data.n * 2;
};
const worker = new Worker("work", work, { connection: third, concurrency: 1 });
worker.on("error", (error) => {
  throw error;
});

const simple = await queue.add("simple", { n: 21 });
assert.equal(await simple.waitUntilFinished(events, PATIENCE_MS), 42);
const failing = await queue.add("fails", {});
await assert.rejects(failing.waitUntilFinished(events, PATIENCE_MS), /as it should/);
assert.equal((await queue.getFailed()).length, 1);
const again = await queue.add("second-time", { n: 1 }, { attempts: 3, backoff: { type: "fixed", delay: 20 } });
assert.equal(await again.waitUntilFinished(events, PATIENCE_MS), 2);

let progressed;
events.on("progress", ({ data }) => (progressed = data));
await (await queue.add("progress", { n: 1 })).waitUntilFinished(events, PATIENCE_MS);
await eventually("progress is told", () => progressed === 50);

const delayed = await queue.add("delayed", { n: 5 }, { delay: 300 });
assert.equal(await delayed.getState(), "delayed");
assert.equal(await delayed.waitUntilFinished(events, PATIENCE_MS), 10);

await queue.pause();
order.length = 0;
for (const [name, priority] of [["low", 10], ["high", 1], ["middle", 5]]) {
  await queue.add(name, { n: 1 }, { priority });
}
const bulk = await queue.addBulk(Array.from({ length: 50 }, (_, n) => ({ name: "bulk", data: { n } })));
assert.equal((await queue.getJobCounts("paused", "prioritized")).prioritized, 3);
await queue.resume();
await Promise.all(bulk.map((job) => job.waitUntilFinished(events, PATIENCE_MS)));
await eventually("all are done", async () => (await queue.getActiveCount()) + (await queue.getPrioritizedCount()) === 0);
assert.deepEqual(order.filter((name) => name !== "bulk"), ["high", "middle", "low"]);

const flows = new FlowProducer({ connection: fourth });
const flow = await flows.add({
  name: "parent",
  queueName: "work",
  data: {},
  children: [1, 2, 3].map((n) => ({ name: "child", queueName: "work", data: { n } })),
});
assert.deepEqual(await flow.job.waitUntilFinished(events, PATIENCE_MS), [2, 4, 6]);

await queue.upsertJobScheduler("often", { every: 100 }, { name: "tick", data: { n: 1 } });
await eventually("the schedule ticks", () => order.filter((name) => name === "tick").length >= 3);
assert.equal(await queue.removeJobScheduler("often"), true);

const unique = await queue.add("once", { n: 1 }, { jobId: "the-one", delay: PATIENCE_MS });
assert.equal((await queue.add("once", { n: 2 }, { jobId: "the-one" })).id, unique.id);
await unique.remove();
assert.equal(await queue.getJob("the-one"), undefined);

await worker.close();
await queue.obliterate({ force: true });
assert.deepEqual(await queue.getJobCounts("wait", "completed", "failed"), { wait: 0, completed: 0, failed: 0 });

const limited = new Queue("limited", { connection: first });
let done = 0;
const slow = new Worker("limited", async () => (done += 1), { connection: third, limiter: { max: 2, duration: 200 } });
await limited.addBulk(Array.from({ length: 6 }, () => ({ name: "x", data: {} })));
await eventually("the limit lets all pass", () => done === 6);
await slow.close();
await Promise.all([queue.close(), limited.close(), events.close(), flows.close()]);
connections.forEach((connection) => connection.disconnect());
