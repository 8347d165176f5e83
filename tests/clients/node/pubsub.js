// ioredis as a subscriber: pubsub.js PORT REDIS_PORT
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");
const { run, waitUntil } = require("./checks.js");

const [port, behind] = process.argv.slice(2).map(Number);
const connect = (options = {}) => new Redis({ host: "127.0.0.1", port, ...options });

async function everyday() {
  const publisher = connect();
  const heard = [];
  const subscribers = [];
  for (let number = 0; number < 20; number += 1) {
    const subscriber = connect();
    subscriber.on("message", (channel, text) => heard.push(`${channel} ${text}`));
    subscriber.on("pmessage", (pattern, channel, text) => heard.push(`${pattern} ${channel} ${text}`));
    assert.equal(await subscriber.subscribe("news", "more"), 2);
    assert.equal(await subscriber.psubscribe("n*"), 3);
    subscribers.push(subscriber);
  }
  assert.equal(await publisher.publish("news", "hello"), 40);
  await waitUntil("all have heard", () => heard.length === 40);
  assert.equal(heard.filter((line) => line === "news hello").length, 20);
  assert.equal(heard.filter((line) => line === "n* news hello").length, 20);
  for (const subscriber of subscribers) {
    assert.equal(await subscriber.unsubscribe("news", "more"), 1);
    assert.equal(await subscriber.punsubscribe("n*"), 0);
    assert.equal(await subscriber.get("absent"), null);
    subscriber.disconnect();
  }
  publisher.disconnect();
}

async function afterALoss() {
  const subscriber = connect();
  const heard = [];
  subscriber.on("message", (channel, text) => heard.push(text));
  await subscriber.subscribe("news");
  const direct = new Redis({ host: "127.0.0.1", port: behind });
  assert.equal(await direct.client("KILL", "TYPE", "pubsub"), 1);
  const publisher = connect();
  await waitUntil("it hears again", async () => {
    await publisher.publish("news", "again");
    return heard.includes("again");
  });
  [subscriber, direct, publisher].forEach((client) => client.disconnect());
}

run([everyday, afterALoss]);
