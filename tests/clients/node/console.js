// WEIR commands as ioredis gives them: console.js PORT SERVICE_PORT
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");

/** One answer as an object: ioredis speaks RESP2, where a map is flat. */
function table(flat) {
  assert.ok(Array.isArray(flat) && flat.length % 2 === 0, String(flat));
  const pairs = [];
  for (let i = 0; i < flat.length; i += 2) pairs.push([flat[i], flat[i + 1]]);
  return Object.fromEntries(pairs);
}

async function main() {
  const [port, servicePort] = process.argv.slice(2).map(Number);
  const operator = new Redis({ port });
  const client = new Redis({ port: servicePort, connectionName: "console-test" });
  assert.equal(await client.ping(), "PONG");

  const clients = (await operator.call("WEIR", "CLIENTS", "BY", "NAME")).map(table);
  const mine = clients.find((row) => row.identity === "console-test");
  assert.equal(typeof mine.clients, "number");
  const [pool] = (await operator.call("WEIR", "POOLS")).map(table);
  assert.equal(pool.max_connections, 64);
  const [node] = (await operator.call("WEIR", "NODES")).map(table);
  assert.equal(node.up, 1);
  const events = (await operator.call("WEIR", "EVENTS")).map(table);
  assert.equal(events[0].kind, "started");
  assert.ok("pid" in table(events[0].facts));
  const config = table(await operator.call("WEIR", "CONFIG", "GET", "process.*"));
  assert.equal(config["process.max_clients"], "10000");
  const hot = table(await operator.call("WEIR", "HOTKEYS"));
  assert.ok(Array.isArray(hot.by_commands) && Array.isArray(hot.largest_replies));
  assert.deepEqual(await operator.call("WEIR", "DOCTOR"), []);
  assert.match(await operator.call("WEIR", "RECORD"), /# Weir: record/);
  assert.equal(await operator.call("WEIR", "KILL", "NAME", "nobody"), 0);
  assert.equal(await operator.call("WEIR", "RESUME"), "OK");
  await assert.rejects(operator.call("WEIR", "NOPE"), /unknown subcommand/);

  operator.disconnect();
  client.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
