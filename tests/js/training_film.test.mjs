// The film of a training run: records, places on the axis, and words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as film from "../../diffusion_edu/widgets/training_film.mjs";

const { records, steps, places, shown, found } = JSON.parse(readFileSync(new URL("../../_build/fixtures/training_film.json", import.meta.url)));

test("a frame's record is found by its step", () => {
  shown.forEach((step, i) => assert.deepEqual(film.recordOf(records, step), found[i]));
});

test("the axis is logarithmic", () => {
  steps.forEach((step, i) => assert.ok(Math.abs(film.across(records, step) - places[i]) < 1e-12));
  assert.equal(film.across([[7]], 7), 0);
});

test("the words give step, time, loss, rate and the average's centre", () => {
  assert.equal(
    film.describe(records, records[0], 0.9),
    "After 20 of 160 steps and 0.2 minutes: loss 0.800, 4.00 times that of the last record. Learning rate 5.0 × 10⁻⁴, 25 % of its peak. The average is centred on step 18.",
  );
  assert.match(film.describe(records, records[2], 0.9), /no more than that of the last record\. Learning rate 0, 0 % /);
});
