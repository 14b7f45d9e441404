// The laboratory of guidance: runs rebuilt from their estimates, places in the sheet, words.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ddimStates, describe, difference, megabytes, pace, placeOf } from "../../diffusion_edu/widgets/guidance_lab.mjs";
import { makeSchedule, normals } from "../../diffusion_edu/widgets/sampling.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/guidance_lab.json", import.meta.url)));

test("a run is rebuilt from its noise and its estimates", () => {
  const wanted = fixture.states;
  const found = ddimStates(makeSchedule(fixture.schedule), normals(fixture.seed, 40), wanted.slice(0, -1).map(([, , x0]) => x0));
  assert.equal(found.length, wanted.length);
  wanted.forEach(([t, x_t], k) => {
    assert.ok(Math.abs(found[k].t - t) < 1e-12);
    x_t.forEach((value, i) => assert.ok(Math.abs(found[k].x_t[i] - value) < 1e-5, `state ${k}`)); // Python's are float32
  });
});

test("frames stand where Python put them", () => {
  const { weights, steps, wanted } = fixture.places;
  assert.deepEqual([placeOf(weights, steps, 0, 0, 2, 5), placeOf(weights, steps, 0, 1, 1, 3), placeOf(weights, steps, 1, 2, 2, 8)], wanted);
});

test("words: what was not drawn, each kind of weight, and the end", () => {
  const settings = { w: 2, sampler: "ddim", evaluations: 8, seed: 1, step: 3 };
  const run = { of: 8, t: 0.62, apart: 0.25, live: false };
  assert.match(describe(settings, null), /^w = 2, DDIM, 8 evaluations, noise 1: this has not been drawn yet\. The network answers any weight: press/);
  assert.match(describe({ ...settings, w: 2.3 }, null, true), /^w = 2\.3, .*not been drawn yet\. The network is asked for it now\.$/);
  assert.match(describe(settings, run), /2 times the way.*\nStep 3 of 8 \(DDIM, 8 evaluations, noise 1, drawn beforehand\)\. At t = 0\.62 .* 0\.25 from the finished/);
  assert.match(describe({ ...settings, w: 0 }, run), /^w = 0: the wish is not heard/);
  assert.match(describe({ ...settings, w: 1, step: 8 }, { ...run, live: true }), /^w = 1: .*noise 1\)\. The finished picture/s);
  assert.doesNotMatch(describe(settings, { ...run, apart: null }), /null/);
});

test("differences, sizes and times", () => {
  assert.equal(difference([0, 255], [0, 0]), Math.sqrt(0.5) * 2);
  assert.equal(megabytes(12_340_000, 18_656_333), "12.3 of 18.7 MB");
  assert.equal(megabytes(1_000_000, null), "1.0 MB");
  assert.equal(pace([31, 29, 90], 1, true), "Drawn by the network just now: 31 ms a step for one picture, two questions each.");
});
