// What the translator computes and says, on the state that Python wrote (tests/widgets/test_convention_translator.py).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as translator from "../../diffusion_edu/widgets/convention_translator.mjs";

const { sources, ours, log_snr } = JSON.parse(readFileSync(new URL("../../_build/fixtures/convention_translator.json", import.meta.url)));

test("the log-SNR of every source is the package's at every time", () => {
  assert.equal(Object.keys(sources).length, 11);
  for (const source of [ours, ...Object.values(sources)])
    log_snr.forEach((value, i) => assert.ok(Math.abs(translator.logSnr(source.signal[i], source.noise[i]) - value) < 1e-6, `${source.name} ${i}`)); // eight digits each
});

test("one noise level in the words of each source", () => {
  const clock = (name, i = 39) => translator.clockOf(sources[name], i);
  assert.equal(clock("ddpm"), "t = 400 of T = 1000");
  assert.equal(clock("vdm"), "γ(t) = 1.41");
  assert.equal(clock("edm"), "σ = 2.03");
  assert.equal(clock("flow"), "t = 0.33 (backwards)");
  assert.equal(clock("cfg"), "λ = −1.41");
  assert.equal(clock("ve", 98), "t = 1.12, T = 1, beyond its end");
});

test("their time runs as it does with them", () => {
  const runs = (values) => translator.placeIn(values, 98) - translator.placeIn(values, 0);
  assert.equal(runs(sources.ddpm.times), 1);
  assert.equal(runs(sources.flow.times), -1);
  assert.ok(Math.abs(translator.placeIn(sources.edm.times, 39) - 0.47) < 0.02, "σ by its logarithm");
});

test("the same strength in each convention", () => {
  const weights = Object.fromEntries(Object.entries(sources).filter(([, each]) => each.weight).map(([key, each]) => [key, translator.weightOf(each, 6)]));
  assert.deepEqual(weights, { cfg: "w = 2", coste: "λ = 3, with a classifier", "della-noce": "s = 2", gao: "γ = 2", petiushko: "γ = 3" });
});

test("words name both times and the number, and change at every step", () => {
  for (const source of Object.values(sources))
    for (const [quantity, row] of Object.entries(source.rows)) {
      const said = row.theirs.values.map((_, i) => translator.describe({ source, quantity, i, ours, guidanceTime: 0.2 }));
      assert.equal(new Set(said).size, said.length);
      for (const text of said) assert.match(text, /Both lines give −?\d/);
    }
  assert.match(translator.describe({ source: sources.flow, quantity: "marginal", i: 39, ours }), /Our t = 0\.40 is t = 0\.33 \(backwards\) on the clock of flow matching; the log-SNR is −1\.41 on both\..*\nTime runs backwards/s);
  assert.match(translator.describe({ source: sources.cfg, quantity: "guidance", i: 6, ours, guidanceTime: 0.2 }), /Our w = 3 is w = 2 in the letters of the CFG paper\./);
});

test("lines that disagree would be said to", () => {
  const rows = { marginal: { theirs: { values: [1] }, ours: { values: [2] } } };
  assert.match(translator.describe({ source: { ...sources.ddpm, rows }, quantity: "marginal", i: 0, ours }), /disagree: 1\.0000 and 2\.0000/);
});

test("a source without the present quantity shows its noised data", () => {
  assert.equal(translator.quantityFor(sources.gao, "loss"), "marginal");
  assert.equal(translator.quantityFor(sources.gao, "guidance"), "guidance");
});
