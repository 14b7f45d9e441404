// The mathematics of the race of samplers against the package's, and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { mulberry32, normalPairs } from "../../diffusion_edu/widgets/common.mjs";
import * as race from "../../diffusion_edu/widgets/sampler_race.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/sampler_race.json", import.meta.url)));
const close = (found, wanted, tolerance = 1e-8) => assert.ok(Math.abs(found - wanted) <= tolerance * (1 + Math.abs(wanted)), `${found} is not ${wanted}`);
const closePoints = (found, wanted, tolerance) => wanted.forEach((point, i) => point.forEach((value, j) => close(found[i][j], value, tolerance)));

test("grids agree", () => {
  assert.deepEqual(Object.keys(fixture.grids), race.GRIDS);
  assert.deepEqual(fixture.samplers, race.SAMPLERS);
  for (const [spacing, ts] of Object.entries(fixture.grids)) race.timeGrid(9, spacing).forEach((t, i) => close(t, ts[i], 1e-7));
});

test("guesses agree", () => {
  for (const { t, x0, eps } of fixture.guesses)
    fixture.x.forEach((x, i) => {
      const guess = race.denoise(fixture.mixture, x, race.schedule(t));
      closePoints([guess.x0, guess.eps], [x0[i], eps[i]]);
    });
});

test("the ends of all solvers on all grids agree", () => {
  for (const { grid, sampler, x } of fixture.ends) {
    const times = race.timeGrid(race.stepsFor(sampler, 7), grid).map(race.schedule);
    closePoints(fixture.x.map((start) => race.walk(sampler, fixture.mixture, start, times).at(-1)), x, 1e-6);
  }
});

test("an ancestral step agrees, and the last one adds no noise", () => {
  const [from, to] = [0.6, 0.3].map(race.schedule);
  const { z, x } = fixture.noisy;
  closePoints(fixture.x.map((start, i) => race.step("ancestral", fixture.mixture, start, from, to, [], z[i])), x);
  const end = race.schedule(0);
  const [left, right] = [[5, 5], [-5, 1]].map((noise) => race.step("ancestral", fixture.mixture, fixture.x[0], from, end, [], noise));
  assert.deepEqual(left, right);
});

test("the exact ends agree", () => closePoints(race.exactEnds(fixture.mixture, fixture.x), fixture.exact, 1e-6));

test("distances are distances", () => {
  const points = normalPairs(mulberry32(1), 50);
  close(race.distance(points, points.map(([x, y]) => [x + 3, y + 4])), 5);
  assert.equal(race.sliced(points, points), 0);
  close(race.sliced(points, points.map(([x, y]) => [x + 1, y])), Math.sqrt(0.5), 1e-6);
});

test("Heun pays twice", () => {
  assert.equal(race.stepsFor("Heun", 8), 4);
  assert.equal(race.spent("Heun", 8), 7);
  assert.equal(race.spent("DDIM", 8), 8);
});

test("the words tell the error, the rival and the law", () => {
  const found = { error: 0.1234, rival: 20, law: 0.3, floor: 0.12 };
  assert.match(race.describe({ sampler: "DDIM", evaluations: 8, grid: "uniform" }, found), /^DDIM, 8 evaluations, grid even in t\..*0\.123.*misses the turn/);
  assert.match(race.describe({ sampler: "iPNDM-4", evaluations: 8, grid: "edm" }, found), /DDIM needs 20 evaluations/);
  assert.match(race.describe({ sampler: "Heun", evaluations: 8, grid: "edm" }, { ...found, rival: 5 }), /7 evaluations.*does not pay/);
  assert.match(race.describe({ sampler: "Heun", evaluations: 8, grid: "edm" }, { ...found, rival: null }), /more than 50/);
  assert.match(race.describe({ sampler: "ancestral", evaluations: 8, grid: "edm" }, found), /fresh noise.*0\.30 \(two exact sets: 0\.12\)/);
});
