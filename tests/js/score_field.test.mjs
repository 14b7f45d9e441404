// The mathematics of the score field against what Python wrote (tests/widgets/test_score_field.py), and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { mulberry32, normalPairs } from "../../diffusion_edu/widgets/common.mjs";
import * as field from "../../diffusion_edu/widgets/score_field.mjs";

const { lumps, points, cases, runs, normals, shares, limits } = JSON.parse(readFileSync(new URL("../../_build/fixtures/score_field.json", import.meta.url)));

/** Both sides compute in float64, in another order of operations. */
function close(actual, expected, what) {
  actual = [actual].flat(9);
  expected = [expected].flat(9);
  assert.equal(actual.length, expected.length, what);
  actual.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) <= 1e-9 * Math.max(1, Math.abs(expected[i])), `${what} ${i}: ${value}, Python says ${expected[i]}`));
}

test("density, score and step agree with Python", () => {
  assert.equal(cases.length, 4);
  for (const { sigma, density, score, eta } of cases) {
    close(points.map((point) => field.density(lumps, sigma, point)), density, `density at ${sigma}`);
    close(points.map((point) => field.score(lumps, sigma, point)), score, `score at ${sigma}`);
    close(field.stepOf(lumps, sigma, limits.size), eta, "eta");
  }
});

test("whole Langevin runs agree with Python's, with the same noise and without", () => {
  assert.equal(runs.length, 8);
  for (const { sigma, eta, z, end } of runs) {
    let walkers = points;
    for (let k = 0; k < 5; k++) walkers = field.langevinStep(lumps, sigma, eta, walkers, z && z[k]);
    close(walkers, end, `walkers at ${sigma}`);
  }
});

test("the random numbers are Python's, and standard normal", () => {
  close(normalPairs(mulberry32(7), 200), normals, "normal");
  const many = normalPairs(mulberry32(1), 50000).flat();
  const mean = many.reduce((sum, each) => sum + each, 0) / many.length;
  const variance = many.reduce((sum, each) => sum + each ** 2, 0) / many.length - mean ** 2;
  assert.ok(Math.abs(mean) < 4 / Math.sqrt(1e5)); // four standard errors
  assert.ok(Math.abs(variance - 1) < 4 * Math.sqrt(2 / 1e5));
});

test("shares are Python's, and so are the ends of the slider", () => {
  close(field.sharesOf(lumps.means, shares.walkers), shares.shares, "share");
  close([field.levelAt(0), field.levelAt(field.LEVELS - 1)], limits.sigma, "levels");
  for (let k = 0; k < field.LEVELS; k++) assert.equal(field.positionOf(field.levelAt(k)), k);
});

test("a step that is too large flies away without NaN", () => {
  let walkers = points;
  for (let k = 0; k < 400; k++) walkers = field.langevinStep(lumps, 0.05, field.stepOf(lumps, 0.05, 40), walkers, null);
  assert.ok(walkers.flat().every((value) => Number.isFinite(value)));
});

const now = { sigma: 0.1, size: 0.5, noise: true, annealed: false, steps: 60, shares: [0.9, 0.05, 0.05], weights: [0.2, 0.5, 0.3], n: 300 };

test("words: what is wrong is said with its error", () => {
  assert.match(field.describe(now), /one level, 60 steps made\. Lump A has 90 % of the walkers, its weight is 20 % ± 2: 30 standard errors off\..*one by one/);
  assert.match(field.describe({ ...now, shares: [0.2, 0.5, 0.3], annealed: true, steps: 1 }), /annealed, 1 step made\. The shares agree/);
  assert.match(field.describe({ ...now, noise: false }), /climbs to a summit/);
  assert.match(field.describe({ ...now, size: 4.5 }), /flies apart/);
  assert.match(field.describe({ ...now, sigma: 2 }), /blurred/);
});
