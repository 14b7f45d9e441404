// The mathematics of the steps of a solver against the package's, and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as steps from "../../diffusion_edu/widgets/solver_steps.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/solver_steps.json", import.meta.url)));
const close = (found, wanted, tolerance = 1e-9) => assert.ok(Math.abs(found - wanted) <= tolerance * (1 + Math.abs(wanted)), `${found} is not ${wanted}`);

test("choices agree", () => {
  assert.deepEqual(steps.SOLVERS, fixture.solvers);
  assert.deepEqual(steps.ORDERS, fixture.orders);
  assert.deepEqual(steps.STEPS, fixture.steps);
});

test("exact paths agree, and keep their rank", () => {
  fixture.t.forEach((t, i) => fixture.exact[i].forEach((x, k) => {
    close(steps.exactAt(steps.rankAt(k), t), x);
    close(steps.rankOf(x, t), steps.rankAt(k));
  }));
});

test("walks and all their evaluations agree", () => {
  for (const { grid, solver, states, asked } of fixture.walks) {
    const found = steps.walk(solver, states[0], steps.times(6, grid));
    states.forEach((x, i) => close(found.states[i], x));
    asked.forEach((each, i) => each.forEach((numbers, j) => numbers.forEach((value, k) => close(found.slopes[i][j][k], value))));
  }
});

test("the crowd's errors agree", () => {
  for (const { grid, solver, crowd } of fixture.walks) {
    const errors = steps.crowdErrors(solver, grid);
    for (const [n, wanted] of Object.entries(crowd)) assert.ok(Math.abs(errors[steps.STEPS.indexOf(Number(n))] / wanted - 1) < 1e-6);
  }
});

test("far from both lumps the velocity is finite", () => {
  for (const x of [-60, 60]) for (const t of [1e-3, 0.5, 1]) assert.ok(Number.isFinite(steps.velocity(x, t)));
});

test("the words say what happens when steps double", () => {
  const settings = { solver: "Heun", steps: 8, grid: "uniform", start: 14, look: 3 };
  const found = { end: 0.5, exact: 0.9, twice: 0.1, order: 1.94, local: 0.02, t: 0.75, s: 0.626 };
  assert.match(steps.describe(settings, found), /8 steps even in t, 16 evaluations; 36\.3 %.*off by 0\.4\. With twice.*0\.1, 4 times less; order 2 promises a factor 4.*order 1\.9,/);
  assert.match(steps.describe(settings, { ...found, twice: 0.5 }), /no less: one error can be small by luck/);
  assert.match(steps.describe(settings, { ...found, end: -1.2 }), /ends at −1\.20, in the left lump: off/);
  assert.match(steps.describe(settings, { ...found, end: 0 }), /ends at 0\.00, between the lumps: off/);
  assert.match(steps.describe(settings, { ...found, end: 2.3 }), /ends at 2\.30, outside both lumps: off/);
});
