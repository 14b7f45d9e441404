// Noise, distances and words of the drawing widget, against Python's numbers.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as widget from "../../diffusion_edu/widgets/draw_your_own.mjs";
import { normals } from "../../diffusion_edu/widgets/sampling.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/draw_your_own.json", import.meta.url)));

/** Equal to 1e-9: both sides compute in float64, in another order. */
function close(found, wanted, name) {
  assert.equal(found.length, wanted.length, name);
  wanted.forEach((value, i) => assert.ok(found[i] === value || Math.abs(found[i] - value) < 1e-9, `${name}, ${i}: ${found[i]} for ${value}`));
}

test("the schedule and the noise are the network's", () => {
  for (const [t, alpha, sigma] of fixture.schedule) {
    close([widget.shares(t).alpha, widget.shares(t).sigma], [alpha, sigma], `t = ${t}`);
  }
  close([...normals(fixture.noise.seed, 784)], fixture.noise.values, "noise");
});

test("the drawing is noised as q_sample does it", () => {
  const { t, x0, x_t } = fixture.noised;
  close(widget.noised(x0, t, normals(fixture.noise.seed, 784)), x_t, "x_t");
});

test("distances, spread, seam and share", () => {
  const { results, mask } = fixture;
  const x0 = fixture.noised.x0;
  close([results.reduce((sum, image) => sum + widget.distance(image, x0), 0) / results.length], [fixture.far], "far");
  close([widget.spread(results)], [fixture.apart], "apart");
  close([widget.seam(results[0], mask)], [fixture.jump], "seam");
  close([widget.shareOf(x0, mask)], [fixture.erased], "share of the ink");
  assert.equal(widget.seam(x0, new Float64Array(784).fill(1)), 0, "nothing erased, no seam");
});

test("fillings are measured where the drawing was erased", () => {
  const mask = new Float64Array(784).fill(1);
  mask[400] = 0;
  const x0 = new Float64Array(784).fill(-1);
  const filled = [1, 0].map((value) => x0.map((each, k) => (k === 400 ? value : each)));
  const facts = widget.factsOfFill(x0, mask, filled);
  close([facts.far, facts.apart, facts.jump, facts.was], [1.5, 1, 1.5, 0], "facts");
});

test("the words follow the numbers", () => {
  assert.deepEqual(widget.MODES, fixture.modes);
  assert.deepEqual(widget.RESAMPLES, fixture.resamples);
  assert.match(widget.describePlace("A three", { long: 20, column: 14.5, row: 14 }), /^A three\.$/);
  assert.match(widget.describePlace("A three", { long: 27, column: 14.5, row: 20 }), /27 cells long .* and 6 cells off the centre/);
  assert.match(widget.describePlace("A three", null), /empty/);
  assert.match(widget.describeEdit(0.5, null, null, 0.3), /keeps 0\.70 of itself and gets noise of deviation 0\.71.*press “Denoise”/);
  const kinds = [[0.1, /almost as it was/], [0.3, /stay where they were/], [0.6, /rough likeness/], [0.8, /forgotten/]];
  for (const [far, words] of kinds) assert.match(widget.describeEdit(0.5, { far, apart: 0.1 }, null, 0.3), words);
  assert.match(widget.describeEdit(0.5, { far: 0.3, apart: 0.1 }, 0.31, 0.3), /is 0\.31 away, as near as real digits/);
  assert.match(widget.describeEdit(0.5, { far: 0.3, apart: 0.1 }, 0.5, 0.3), /further than between real digits/);
  assert.match(widget.describeFill(0, null), /Nothing is erased/);
  assert.match(widget.describeFill(0.4, null), /40 % of the ink is erased.*“Fill in”/);
  assert.match(widget.describeFill(0.4, { far: 0.5, apart: 0.4, jump: 0.3, was: 0.1 }), /rougher than the drawing: .* by 0\.30, in the drawing by 0\.10/);
});
