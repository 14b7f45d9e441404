// Guidance on the line in JavaScript against Python, and its words.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as guided from "../../diffusion_edu/widgets/guided_mixture.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/guided_mixture.json", import.meta.url)));
const close = (found, wanted, what) => assert.ok(Math.abs(found - wanted) <= 1e-8 * (1 + Math.abs(wanted)), `${what}: ${found}, Python ${wanted}`);

test("ends, tilt and moments are Python's", () => {
  for (const { state, ends, tilt, summary } of fixture.cases) {
    const found = guided.compute(state);
    ends.forEach((end, i) => close(found.ends[i], end, `particle ${i} of ${JSON.stringify(state)}`));
    tilt.forEach((value, i) => close(found.tilt[i], value, `tilt at ${i}`));
    for (const key of ["ode", "tilt", "wanted"]) summary[key].forEach((value, i) => close(found.summary[key][i], value, `${key} ${i}`));
  }
});

test("the examples and limits are Python's", () => {
  for (const [key, { whole, wanted }] of Object.entries(fixture.examples)) assert.deepEqual([guided.EXAMPLES[key].whole, guided.EXAMPLES[key].wanted], [whole, wanted]);
  assert.deepEqual(fixture.limits.low, [-guided.LIMIT, guided.LIMIT]);
});

test("words: the first state, agreement at 0 and 1, and the interval", () => {
  const say = (w, low = -12, high = 12) => guided.describe({ w, low, high }, guided.compute({ example: "pair", w, low, high }).summary);
  assert.match(say(2), /mean 1\.[0-9]+ and variance 0\.250; the tilted density .* has 1\.14 and 0\.571.*\nThe blue and the orange law differ.*narrower/);
  assert.match(say(1), /all three agree/);
  assert.match(say(0), /the condition is ignored/);
  assert.match(say(3, -2, 3), /only for a log-SNR from −2 to 3/);
  assert.match(say(3, 3, 3), /acts nowhere/);
});
