// The mathematics of the bound explorer against what Python wrote (tests/widgets/test_bound_explorer.py), and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as bound from "../../diffusion_edu/widgets/bound_explorer.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/bound_explorer.json", import.meta.url)));

function close(actual, expected, what) {
  const error = Math.abs(actual - expected);
  assert.ok(error <= 1e-9 * Math.max(1, Math.abs(expected)), `${what}: ${actual}, Python says ${expected}`);
}

test("the errors of the exact denoiser and the entropy agree with Python", () => {
  assert.equal(bound.SPREAD, fixture.spread);
  close(bound.ENTROPY, fixture.entropy, "entropy");
  fixture.levels.forEach((level, i) => close(bound.epsError(level), fixture.errors[i], `error at ${level}`));
});

for (const { schedule, steps, low, high, log_snr, costs, terms, curve } of fixture.cases)
  test(`${schedule}, ${steps} steps from ${low} to ${high} agrees with Python`, () => {
    fixture.u.forEach((u, i) => close(bound.logSnrAt(schedule, low, high, u), log_snr[i], `log-SNR at ${u}`));
    bound.stepCosts(schedule, steps, low, high).forEach((cost, i) => close(cost, costs[i], `step ${i}`));
    const found = bound.terms(schedule, steps, low, high);
    for (const [name, value] of Object.entries(terms)) close(found[name], value, name);
    bound.costCurve(schedule, low, high).forEach(([u, cost], i) => {
      close(u, fixture.curve_u[i], "u");
      close(cost, curve[i], `curve at ${u}`);
    });
  });

test("names and limits are Python's", () => {
  assert.deepEqual(Object.fromEntries(Object.entries(bound.SCHEDULES).map(([key, { name }]) => [key, name])), fixture.schedules);
  for (const [values, name] of [[bound.STEPS, "steps"], [bound.HIGHS, "high"], [bound.LOWS, "low"]])
    assert.deepEqual([values[0], values.at(-1)], fixture.limits[name]);
});

test("a time and its log-SNR are inverse", () => {
  for (const { time, logSnr } of Object.values(bound.SCHEDULES))
    for (const level of [-10, -3.5, 0, 2, 10]) close(logSnr(time(level)), level, "round trip");
});

test("words follow what is seen", () => {
  assert.match(bound.describe("even", 10, -7, 7), /10 steps, Even.*too high\.\nThe denoiser is perfect/);
  assert.match(bound.describe("even", 1, -7, 7), /^1 step,/);
  assert.match(bound.describe("even", 1000, -7, 7), /another schedule/);
  assert.match(bound.describe("even", 1000, 1, 7), /prior term/);
  for (const schedule of Object.keys(bound.SCHEDULES))
    for (const steps of bound.STEPS) assert.doesNotMatch(bound.describe(schedule, steps, -10, 10), /NaN|undefined|Infinity/);
});
