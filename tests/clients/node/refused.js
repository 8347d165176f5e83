// An application over ioredis that Weir has no room for: refused.js PORT SECONDS
// Its calls wait while the library reconnects. Prints how many failed; who runs
// this counts the connections.
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");
const { run } = require("./checks.js");

async function refused() {
  const redis = new Redis({ host: "127.0.0.1", port: Number(process.argv[2]) });
  let errors = 0;
  redis.on("error", (error) => {
    assert.match(error.message, /max number of clients reached|read ECONNRESET/);
    errors++;
  });
  const end = Date.now() + Number(process.argv[3]) * 1000;
  let failed = 0;
  const pause = () => new Promise((resolve) => setTimeout(resolve, 1));
  while (Date.now() < end) {
    const outcome = await Promise.race([
      redis.get("key").then((value) => assert.fail(`a reply: ${value}`), (error) => error),
      new Promise((resolve) => setTimeout(resolve, end - Date.now(), null)),
    ]);
    if (outcome) failed++;
    await pause();
  }
  console.log(`${failed} calls failed, ${errors} errors reported`);
  redis.disconnect();
}

run([refused]);
