// The evidence gap's mathematics in JavaScript against Python's, and its words.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as gap from "../../diffusion_edu/widgets/evidence_gap.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/evidence_gap.json", import.meta.url)));
const close = (found, wanted, what) => assert.ok(Math.abs(found - wanted) <= 1e-9 * (1 + Math.abs(wanted)), `${what}: ${found}, Python ${wanted}`);

test("the four terms are Python's", () => {
  for (const { state, terms } of fixture.cases) {
    const found = gap.terms(state);
    close(found.evidence, terms.log_evidence, `evidence of ${JSON.stringify(state)}`);
    close(found.reconstruction, terms.reconstruction, "reconstruction");
    close(found.klPrior, terms.kl_prior, "KL to the prior");
    close(found.gap, terms.gap, "gap");
    close(found.elbo + found.gap, found.evidence, "the identity");
  }
});

test("the best q is Python's", () => {
  for (const { state, best } of fixture.cases) {
    const found = gap.bestQ(state);
    close(found.mean, best[0], `mean for ${JSON.stringify(state)}`);
    close(found.width, best[1], "width");
  }
});

test("limits are Python's", () => assert.deepEqual(gap.LIMITS, fixture.limits));

test("the best q stays on its sliders", () => {
  for (const { state } of fixture.cases)
    for (const [name, value] of Object.entries(gap.bestQ(state)))
      assert.ok(value >= gap.LIMITS[name][0] && value <= gap.LIMITS[name][1], `${name} ${value} for ${JSON.stringify(state)}`);
});

const start = { decoder: "square", mean: 0.5, width: 0.7, x: 2, noise: 0.6 };

test("words: what is wasted, what no Gaussian can close, and when the bound is exact", () => {
  assert.match(gap.describe(start), /nats are wasted by the choice of q/);
  assert.match(gap.describe({ ...start, ...gap.bestQ(start) }), /two humps; q sits on one/);
  const line = { ...start, decoder: "line" };
  assert.match(gap.describe({ ...line, ...gap.bestQ(line) }), /q is the true posterior: the bound is exact/);
  for (const { state } of fixture.cases) assert.doesNotMatch(gap.describe(state), /NaN|undefined|Infinity|−0\.00/);
});

test("the bars' scale holds them", () => {
  assert.equal(gap.scaleFor(4.9), 5);
  assert.equal(gap.scaleFor(5.1), 10);
  assert.equal(gap.scaleFor(1e9), 500);
});
