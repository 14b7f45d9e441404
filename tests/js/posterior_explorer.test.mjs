// The posterior on a line against what Python wrote (tests/widgets/test_posterior_explorer.py), and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as explorer from "../../diffusion_edu/widgets/posterior_explorer.mjs";

const cases = JSON.parse(readFileSync(new URL("../../_build/fixtures/posterior_explorer.json", import.meta.url)));
const close = (found, wanted, what) => assert.ok(Math.abs(found - wanted) <= 1e-9 * (1 + Math.abs(wanted)), `${what}: ${found}, Python says ${wanted}`);

test("bells, weights and variances agree with Python", () => {
  assert.equal(cases.length, 6);
  for (const { t, s, x_t, x_0, bells, weights, variances, share } of cases) {
    const found = explorer.posterior(t, s, x_t, x_0);
    [found.prior, found.likelihood, found.both].forEach((bell, k) => bell.forEach((value, i) => close(value, bells[k][i], `bell ${k} at ${t}, ${s}`)));
    found.weights.forEach((value, i) => close(value, weights[i], "weight"));
    [found.small, found.large].forEach((value, i) => close(value, variances[i], "variance"));
    close(found.share, share, "share");
  }
});

test("words change at every step of every slider", () => {
  const said = (list) => assert.equal(new Set(list).size, list.length);
  said(Array.from({ length: 58 }, (_, i) => explorer.describe((i + 41) / 100, 0.4, 1.5, -0.8)));
  said(Array.from({ length: 60 }, (_, i) => explorer.describe(0.6, i / 100, 1.5, -0.8)));
  for (const s of [0.01, 0.4, 0.59]) {
    said(Array.from({ length: 61 }, (_, i) => explorer.describe(0.6, s, (i - 30) / 10, -0.8)));
    said(Array.from({ length: 61 }, (_, i) => explorer.describe(0.6, s, 1.5, (i - 30) / 10)));
  }
});

test("words name the limits", () => {
  assert.match(explorer.describe(0.6, 0, 1.5, -0.8), /mean 0\.00 x_t \+ 1\.00 x_0 = −0\.80, deviation 0\.00\..*nothing is left to draw/s);
  assert.match(explorer.describe(0.6, 0.59, 1.5, -0.8), /A small step.*As s → t they become one/s);
  assert.match(explorer.describe(0.02, 0.01, 1.5, -0.8), /Near the data they still differ/);
  assert.match(explorer.describe(0.95, 0.1, 1.5, -0.8), /A long step/);
  assert.match(explorer.describe(0.6, 0.4, 1.5, -0.8), /A compromise/);
});
