// The judges' mathematics in JavaScript against Python's, and their words.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as judges from "../../diffusion_edu/widgets/metric_explorer.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/metric_explorer.json", import.meta.url)));

test("the verdicts are Python's", () => {
  assert.ok(fixture.cases.length > 100);
  for (const { state, verdicts } of fixture.cases) {
    const found = judges.verdicts(state);
    assert.deepEqual(Object.keys(found).sort(), Object.keys(verdicts).sort());
    for (const [name, wanted] of Object.entries(verdicts))
      assert.ok(Math.abs(found[name] - wanted) <= 1e-8 * (1 + Math.abs(wanted)), `${name} of ${JSON.stringify(state)}: ${found[name]}, Python ${wanted}`);
  }
});

test("limits, sizes and data are Python's", () => {
  assert.deepEqual(judges.LIMITS, fixture.limits);
  assert.deepEqual(judges.SIZES, fixture.sizes);
  assert.deepEqual(judges.DATA, fixture.data);
});

test("the models of the buttons stay on the sliders", () => {
  for (const model of Object.values(judges.MODELS))
    for (const [name, value] of Object.entries(model)) assert.ok(value >= judges.LIMITS[name][0] && value <= judges.LIMITS[name][1]);
});

test("words: who sees what", () => {
  const said = (name, n = 10000) => judges.describe({ ...judges.MODELS[name], n });
  assert.match(said("the data"), /No judge finds this model clearly worse/);
  assert.match(said("one blob"), /Nothing clearly wrong, say: .*Fréchet distance.*kernel distance/);
  assert.match(said("too narrow"), /Better than the data themselves.*precision/);
  assert.match(said("half lost"), /Clearly worse than the data, say: .*recall/);
  assert.match(said("the data", 20), /come from there being so few; 20 of the data/);
  assert.match(said("the data"), /so many images add nothing/);
  for (const { state } of fixture.cases) assert.doesNotMatch(judges.describe(state), /NaN|undefined|Infinity/);
});
