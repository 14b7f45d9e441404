// The mathematics of the schedule explorer against what Python wrote (tests/widgets/test_schedule_explorer.py), and its limits and words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as explorer from "../../diffusion_edu/widgets/schedule_explorer.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/schedule_explorer.json", import.meta.url)));

/** Both sides compute in float64; 1e-9 leaves room for the digits that log-SNR loses near the ends of time. */
function close(actual, expected, what) {
  const error = Math.abs(actual - expected);
  assert.ok(error <= 1e-9 * Math.max(1, Math.abs(expected)), `${what}: ${actual}, Python says ${expected}`);
}

test("Python wrote a grid worth the name", () => {
  assert.deepEqual(new Set(fixture.cases.map((each) => each.family)), new Set(Object.keys(explorer.FAMILIES)));
  assert.ok(fixture.cases.reduce((sum, each) => sum + each.ts.length, 0) > 500);
});

for (const { family, parameters, ts, alpha, sigma, log_snr, signal_share } of fixture.cases)
  test(`${family} ${JSON.stringify(parameters)} agrees with Python at ${ts.length} times`, () => {
    ts.forEach((t, i) => {
      const found = explorer.coefficients(family, parameters, t);
      close(found.alpha, alpha[i], `alpha(${t})`);
      close(found.sigma, sigma[i], `sigma(${t})`);
      close(explorer.alphaBar(family, parameters, t), alpha[i] ** 2, `alpha_bar(${t})`);
      close(explorer.logSnr(family, parameters, t), log_snr[i], `log_snr(${t})`);
      close(explorer.signalShare(family, parameters, t), signal_share[i], `signal share(${t})`);
    });
  });

test("noised pixels agree with Python's q_sample", () => {
  for (const { family, parameters, t, x_t } of fixture.noised) {
    const found = explorer.noised(family, parameters, t, fixture.x0, fixture.eps);
    found.forEach((value, i) => close(value, x_t[i], `${family} pixel ${i}`));
  }
});

test("the KL divergence at the end agrees with torch.distributions", () => {
  for (const { family, parameters, kl } of fixture.divergences)
    close(explorer.klToNoise(family, parameters, fixture.x0), kl, `KL of ${family}`);
});

test("names, colours and limits are Python's", () => {
  const looks = Object.entries(explorer.FAMILIES).map(([key, { name, colour, dash }]) => [key, name, colour, dash]);
  assert.deepEqual(looks, fixture.looks);
  for (const [name, [low, high]] of Object.entries(fixture.limits)) {
    const values = explorer.PARAMETERS[name][2];
    assert.equal(values[0], low, name);
    assert.ok(name.startsWith("beta") ? values.at(-1) < high : values.at(-1) === high, name);
    assert.deepEqual(values, [...new Set(values)].sort((a, b) => a - b), `${name} rises`);
    assert.ok(values.includes(fixture.defaults[name]), `${name} starts on its slider`);
  }
});

for (const [name, wanted, value] of [
  ["beta_max", "1.5", 0.999],
  ["beta_max", "1", 0.999],
  ["beta_min", "-0.1", 0],
  ["steps", "0", 1],
  ["steps", "12.4", 12],
  ["steps", "1e9", 4000],
  ["horizon", "-1", 0.5],
  ["sigma_max", "Infinity", 100],
])
  test(`${name} = ${wanted} is clamped to ${value}, and says so`, () => {
    const allowed = explorer.clampParameter(name, wanted);
    assert.equal(allowed.value, value);
    assert.match(allowed.note, new RegExp(`must be .*: ${wanted.replace(".", "\\.")} became ${value}\\.`));
  });

test("what is no number changes nothing, and says so", () => {
  for (const wanted of ["", "much"]) {
    const allowed = explorer.clampParameter("beta_max", wanted);
    assert.equal(allowed.value, null);
    assert.match(allowed.note, /β_max must be in \[0, 1\)/);
  }
});

test("what is allowed stays, without a note", () => {
  for (const [name, wanted] of [["beta_max", "0.02"], ["beta_min", "0"], ["beta_max", "0.9995"], ["steps", "37"], ["cosine_s", "0.5"]])
    assert.deepEqual(explorer.clampParameter(name, wanted), { value: Number(wanted), note: "" });
});

const ddpm = { ...fixture.defaults };

test("words: DDPM's chain ends in noise, a short one with the same betas does not", () => {
  assert.match(explorer.describeNow("linear", ddpm, 0.5), /step 500 of 1000.*Signal share 7\.9 %.*log-SNR −2\.46/);
  assert.match(explorer.describeEnd("linear", ddpm, fixture.x0), /ᾱ_T = 4\.04 × 10⁻⁵.*right at most 5\d % of the time/);
  assert.match(explorer.describeEnd("linear", { ...ddpm, steps: 100 }, fixture.x0), /too much is left/);
});

test("words: the ends of time are said, not computed with", () => {
  assert.match(explorer.describeNow("flow", ddpm, 0), /no noise yet/);
  assert.match(explorer.describeNow("flow", ddpm, 1), /no signal left/);
  assert.match(explorer.describeEnd("cosine", ddpm, fixture.x0), /ᾱ = 0: pure noise/);
  for (const family of Object.keys(explorer.FAMILIES))
    for (const t of [0, 0.5, 1])
      assert.doesNotMatch(explorer.describeNow(family, ddpm, t) + explorer.describeEnd(family, ddpm, fixture.x0), /NaN|undefined|-∞/);
});

test("a chain without noise is all signal", () => {
  const silent = { ...ddpm, beta_min: 0, beta_max: 0 };
  assert.equal(explorer.alphaBar("linear", silent, 1), 1);
  assert.equal(explorer.klToNoise("linear", silent, fixture.x0), Infinity);
  assert.match(explorer.describeEnd("linear", silent, fixture.x0), /too much is left/);
});
