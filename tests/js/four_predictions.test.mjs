// The four predictions against what Python wrote (tests/widgets/test_four_predictions.py), and their words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as four from "../../diffusion_edu/widgets/four_predictions.mjs";

const { lumps, points, cases } = JSON.parse(readFileSync(new URL("../../_build/fixtures/four_predictions.json", import.meta.url)));
const close = (found, wanted, what) => assert.ok(Math.abs(found - wanted) <= 1e-8 * (1 + Math.abs(wanted)), `${what}: ${found}, Python says ${wanted}`);

test("densities, the four predictions and the errors agree with Python", () => {
  assert.equal(cases.length, 4);
  for (const { t, density, answers, errors } of cases) {
    points.forEach((point, i) => {
      const parts = four.densities(lumps, t, point);
      close(parts.reduce((a, b) => a + b), density[i], `density at ${t}`);
      if (density[i] < 1e-200) return; // so far out the belief is rounded to one lump
      const found = four.predict(lumps, t, point);
      for (const [name, values] of Object.entries(answers)) values[i].forEach((value, k) => close(found[name][k], value, `${name} at ${t}`));
    });
    for (const [name, value] of Object.entries(errors)) close(four.errors(t)[name], value, `error of ${name} at ${t}`);
  }
});

test("far out there are numbers, too", () => {
  const { belief, score } = four.predict({ ...lumps, stds: [0.01, 0.01, 0.01] }, 0.01, [3, 3]);
  assert.deepEqual(belief, [0, 1, 0]);
  assert.ok(score.every(Number.isFinite));
});

test("words change at every step of every slider", () => {
  const said = (list) => assert.equal(new Set(list).size, list.length);
  said(Array.from({ length: 99 }, (_, i) => four.describe(lumps, (i + 1) / 100, [-0.2, 0.7])));
  for (const t of [0.05, 0.35, 0.9])
    for (const axis of [0, 1]) said(Array.from({ length: 61 }, (_, i) => four.describe(lumps, t, axis ? [0, (i - 30) / 10] : [(i - 30) / 10, 0])));
});

test("words say what is dangerous where", () => {
  assert.match(four.describe(lumps, 0.95, [0, 0]), /ε̂ is almost x_t itself/);
  assert.match(four.describe(lumps, 0.05, [0, 0]), /x̂_0 is almost x_t itself.*becomes 1\.1/);
  assert.match(four.describe(lumps, 0.5, [0, 0]), /no choice is dangerous/);
});
