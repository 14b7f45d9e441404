// The arithmetic of the error budget against Python's, its verdicts, and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as budget from "../../diffusion_edu/widgets/error_budget.mjs";

const { data, cells, colours } = JSON.parse(readFileSync(new URL("../../_build/fixtures/error_budget.json", import.meta.url)));

test("parts and colours agree", () => {
  assert.deepEqual(budget.PARTS, colours);
  for (const { cell, parts } of cells)
    for (const [name, { value, spread }] of Object.entries(budget.split(data, cell))) {
      assert.ok(Math.abs(value - parts[name].value) < 1e-12, name);
      assert.ok(Math.abs(spread - parts[name].spread) < 1e-12, name);
    }
});

test("the verdict names what would help", () => {
  const gains = (steps, network, spread = 0.01) => ({ "more steps": { value: steps, spread }, network: { value: network, spread } });
  assert.equal(budget.limit(gains(0.2, 0.01), false), "steps");
  assert.equal(budget.limit(gains(0.02, 0.2), false), "network");
  assert.equal(budget.limit(gains(0.1, 0.2), false), "both");
  assert.equal(budget.limit(gains(0.01, 0.01), false), "nothing");
  assert.equal(budget.limit(gains(0.01, 0.2), true), "nothing");
});

test("the words carry the numbers and the verdict", () => {
  const facts = { counts: data.counts, noiseError: 0.26, luck: 0.008 };
  const words = (cell) => budget.describe(cell, budget.split(data, cell), facts);
  assert.match(words(cells[0].cell), /10 evaluations of the network of 300 training steps.*floor 0\.\d+, steps .*The network is the limit/);
  assert.match(words({ sampler: "DDIM", evaluations: 4, training: 10000 }), /10,000 training steps.*The steps are the limit/);
  assert.match(words({ sampler: "DDIM", evaluations: 60, training: 0 }), /exact denoiser\..*Nothing is left/);
});

test("at each place of either slider the words differ", () => {
  const facts = { counts: data.counts, noiseError: 0.1, luck: 0.008 };
  const all = data.counts.flatMap((evaluations) => data.trained.map((training) => {
    const cell = { sampler: "DDIM", evaluations, training };
    return budget.describe(cell, budget.split(data, cell), facts);
  }));
  assert.equal(new Set(all).size, all.length);
});
