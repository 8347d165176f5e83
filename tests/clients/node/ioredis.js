// ioredis with its default settings: ioredis.js PORT
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");
const { run, waitUntil } = require("./checks.js");

const port = Number(process.argv[2]);
const connect = (options = {}) => new Redis({ host: "127.0.0.1", port, ...options });

async function values() {
  const redis = connect();
  assert.equal(await redis.flushall(), "OK");
  assert.equal(await redis.set("js:string", "value", "EX", 100), "OK");
  assert.equal(await redis.get("js:string"), "value");
  assert.equal(await redis.get("js:absent"), null);
  const raw = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  assert.equal(await redis.set("js:binary", raw), "OK");
  assert.deepEqual(await redis.getBuffer("js:binary"), raw);
  const large = "0123456789abcdef".repeat(65536);
  assert.equal(await redis.set("js:large", large), "OK");
  assert.equal((await redis.get("js:large")) === large, true);
  assert.equal(await redis.incrby("js:counter", 5), 5);
  assert.equal(await redis.hset("js:hash", { a: 1, b: 2 }), 2);
  assert.deepEqual(await redis.hgetall("js:hash"), { a: "1", b: "2" });
  assert.equal(await redis.zadd("js:zset", 1, "one", 2.5, "more"), 2);
  assert.deepEqual(await redis.zrange("js:zset", 0, -1, "WITHSCORES"), ["one", "1", "more", "2.5"]);
  assert.deepEqual(await redis.mget("js:counter", "js:absent"), ["5", null]);
  redis.disconnect();
}

async function errors() {
  const redis = connect();
  await redis.set("js:text", "text");
  await assert.rejects(redis.incr("js:text"), /not an integer/);
  await assert.rejects(redis.lpush("js:text", "x"), /WRONGTYPE/);
  await assert.rejects(redis.call("NONSENSE", "a"), /unknown command/);
  assert.equal(await redis.get("js:text"), "text");
  redis.disconnect();
}

async function manyAtOnce() {
  const clients = Array.from({ length: 20 }, () => connect());
  await Promise.all(
    clients.map(async (redis, number) => {
      const replies = [];
      for (let turn = 0; turn < 200; turn++) {
        replies.push(redis.set(`js:many:${number}:${turn}`, `${number}-${turn}`));
        replies.push(redis.get(`js:many:${number}:${turn}`));
      }
      const expected = [];
      for (let turn = 0; turn < 200; turn++) expected.push("OK", `${number}-${turn}`);
      assert.deepEqual(await Promise.all(replies), expected);
    }),
  );
  clients.forEach((redis) => redis.disconnect());
}

async function automaticPipelining() {
  const redis = connect({ enableAutoPipelining: true });
  const sets = await Promise.all(Array.from({ length: 500 }, (_, n) => redis.set(`js:auto:${n}`, n)));
  assert.deepEqual(sets, Array(500).fill("OK"));
  const gets = await Promise.all(Array.from({ length: 500 }, (_, n) => redis.get(`js:auto:${n}`)));
  assert.deepEqual(gets, Array.from({ length: 500 }, (_, n) => String(n)));
  redis.disconnect();
}

async function pipelinesAndTransactions() {
  const redis = connect();
  assert.deepEqual(await redis.pipeline().set("js:p", 1).incr("js:p").lpush("js:p", "x").get("js:p").exec().then(
    (replies) => replies.map(([error, value]) => (error ? error.message.split(" ")[0] : value))),
    ["OK", 2, "WRONGTYPE", "2"]);
  assert.deepEqual(await redis.multi().set("js:m", 1).incr("js:m").exec(), [[null, "OK"], [null, 2]]);
  await assert.rejects(redis.multi().set("js:m", 9).call("GET").exec(), /EXECABORT/);

  // Command by command.
  assert.equal(await redis.multi({ pipeline: false }), "OK");
  assert.equal(await redis.set("js:m", 10), "QUEUED");
  assert.equal(await redis.incr("js:m"), "QUEUED");
  assert.deepEqual(await redis.exec(), [[null, "OK"], [null, 11]]);

  const other = connect();
  await redis.watch("js:m");
  await other.set("js:m", 100);
  assert.equal(await redis.multi().incr("js:m").exec(), null);
  await redis.watch("js:m");
  assert.deepEqual(await redis.multi().incr("js:m").exec(), [[null, 101]]);
  redis.disconnect();
  other.disconnect();
}

async function subscriptions() {
  const subscriber = connect();
  const redis = connect();
  const received = [];
  subscriber.on("message", (channel, message) => received.push(["message", channel, message]));
  subscriber.on("pmessage", (pattern, channel, message) => received.push([pattern, channel, message]));
  assert.equal(await subscriber.subscribe("js:a", "js:b"), 2);
  assert.equal(await subscriber.psubscribe("js:*"), 3);
  assert.equal(await redis.publish("js:a", "one"), 2);
  assert.equal(await redis.publish("js:c", "two"), 1);
  await waitUntil("three messages", () => received.length === 3);
  assert.deepEqual(received, [["message", "js:a", "one"], ["js:*", "js:a", "one"], ["js:*", "js:c", "two"]]);
  assert.equal(await subscriber.unsubscribe("js:a", "js:b"), 1);
  assert.equal(await subscriber.punsubscribe("js:*"), 0);
  assert.equal(await subscriber.set("js:after", "fine"), "OK");
  subscriber.disconnect();
  redis.disconnect();
}

async function scripts() {
  const redis = connect();
  await redis.script("FLUSH");
  redis.defineCommand("double", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)" });
  assert.equal(await redis.double("js:script", 21), 42);
  assert.equal(await redis.double("js:script", 1), 44);
  assert.deepEqual(await redis.pipeline().double("js:script", 1).exec(), [[null, 46]]);
  assert.deepEqual(await redis.eval("return {1, 'two', {3, false}}", 0), [1, "two", [3, null]]);
  redis.disconnect();
}

async function blocking() {
  const redis = connect();
  const waiter = connect();
  assert.equal(await redis.blpop("js:queue", 0.1), null);
  const popped = waiter.blpop("js:queue", 20);
  await waitUntil("a blocked client", async () => /blocked_clients:1\r/.test(await redis.info("clients")));
  assert.equal(await redis.rpush("js:queue", "element"), 1);
  assert.deepEqual(await popped, ["js:queue", "element"]);
  // What comes behind a blocked command waits for it and keeps its order.
  const [first, second] = [waiter.blpop("js:queue", 0.05), waiter.get("js:counter")];
  assert.deepEqual(await Promise.all([first, second]), [null, "5"]);
  redis.disconnect();
  waiter.disconnect();
}

async function databasesAndNames() {
  const five = connect({ db: 5, connectionName: "js-client" });
  const zero = connect();
  await five.set("js:where", "five");
  assert.equal(await zero.get("js:where"), null);
  assert.equal(await five.get("js:where"), "five");
  assert.equal(await five.client("GETNAME"), "js-client");
  assert.match(await five.client("INFO"), /name=js-client .* db=5 /);
  assert.equal(await zero.select(5), "OK");
  assert.equal(await zero.get("js:where"), "five");
  five.disconnect();
  zero.disconnect();
}

async function streamsOfKeys() {
  const redis = connect();
  const found = await new Promise((resolve, reject) => {
    const keys = [];
    redis.scanStream({ match: "js:auto:*", count: 50 })
      .on("data", (page) => keys.push(...page)).on("end", () => resolve(keys)).on("error", reject);
  });
  assert.equal(new Set(found).size, 500);
  redis.disconnect();
}

async function monitor() {
  const redis = connect();
  // ioredis takes a line that comes in one packet with the answer to MONITOR for a reply to
  // nothing: no other client may still be at its first INFO.
  await redis.ping();
  const watcher = await redis.monitor();
  const seen = new Promise((resolve) => watcher.on("monitor", (_time, args) => args[0] === "set" && resolve(args)));
  await redis.set("js:monitored", "yes");
  assert.deepEqual(await seen, ["set", "js:monitored", "yes"]);
  watcher.disconnect();
  redis.disconnect();
}

async function quitting() {
  const redis = connect();
  const last = redis.get("js:counter");
  assert.equal(await redis.quit(), "OK");
  assert.equal(await last, "5");
}

run([values, errors, manyAtOnce, automaticPipelining, pipelinesAndTransactions, subscriptions, scripts,
  blocking, databasesAndNames, streamsOfKeys, monitor, quitting]);
