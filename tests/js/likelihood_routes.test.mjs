// The likelihood routes' mathematics against the package's numbers, and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { ROUTES, STEPS, describe, grid, noise, path, point, routes, slope } from "../../diffusion_edu/widgets/likelihood_routes.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/likelihood_routes.json", import.meta.url)));
const close = (found, wanted, tolerance, what) =>
  assert.ok(Math.abs(found - wanted) <= tolerance * Math.max(1, Math.abs(wanted)), `${what}: ${found}, Python ${wanted}`);

test("times are Python's", () => {
  grid(7).forEach((t, i) => close(t, fixture.grid[i], 1e-10, `time ${i}`)); // a closed form here, bisection there
});

test("noise and velocity are Python's", () => {
  const x = [0.3, -0.4];
  noise(x, fixture.grid[3], 0.2).forEach((value, i) => close(value, fixture.noise[i], 1e-10, "noise"));
  fixture.velocity.forEach((value, i) => close(slope([...x, 0, 0, 0], fixture.grid[3], 0.2)[i], value, 1e-10, "velocity"));
});

test("the divergence is that of the velocity, and the probes' mean", () => {
  const [t, h] = [0.2, 1e-5];
  const at = (x, y) => slope([x, y, 0, 0, 0], t, 0.2);
  const numeric = (at(0.3 + h, 0.1)[0] - at(0.3 - h, 0.1)[0] + at(0.3, 0.1 + h)[1] - at(0.3, 0.1 - h)[1]) / (2 * h);
  const [, , trace, equal, opposite] = at(0.3, 0.1);
  close(trace, numeric, 1e-6, "divergence");
  close((equal + opposite) / 2, trace, 1e-12, "mean of the probes");
  assert.ok(Math.abs(equal - opposite) > 0.1);
});

for (const each of fixture.cases) {
  test(`routes at ${each.place} with ${each.steps} steps and error ${each.error}`, () => {
    const found = routes(each.place, each.steps, each.error);
    for (const [name, value] of Object.entries(each.routes)) close(found[name], value, 1e-7, name);
    path(point(each.place), each.steps, each.error).at(-1).slice(0, 2).forEach((value, i) => close(value, each.end[i], 1e-8, "end"));
  });
}

test("names, colours and steps are Python's", () => {
  assert.deepEqual(Object.entries(ROUTES).map(([key, { name, colour }]) => [key, name, colour]), fixture.looks);
  assert.deepEqual(STEPS, fixture.steps);
});

test("the words follow the numbers", () => {
  assert.match(describe(0.55, 6, 0), /The truth is −.*too (high|low).*The score is exact\./);
  assert.match(describe(0.55, 64, 0), /within 0\.02 of the truth/);
  assert.match(describe(0.55, 64, 0.2), /two models/);
});
