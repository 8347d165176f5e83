// What the scripts of this directory share.
"use strict";

const assert = require("node:assert/strict");

/** Far above what anything here takes, in milliseconds. */
const DEADLINE = 30_000;

/** Polls until the condition gives something true, and returns it. */
async function waitUntil(what, condition) {
  const givenUpAt = Date.now() + DEADLINE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < givenUpAt, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Runs each scenario and ends the process; with an error at the first that fails. */
async function run(scenarios, ...given) {
  const guard = setTimeout(() => {
    console.error("took too long");
    process.exit(1);
  }, 4 * DEADLINE);
  try {
    for (const scenario of scenarios) {
      console.log(scenario.name);
      await scenario(...given);
    }
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
  clearTimeout(guard);
  process.exit(0);
}

module.exports = { DEADLINE, run, waitUntil };
