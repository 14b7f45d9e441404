// The mathematics of the family of reverse processes against the package's, and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as family from "../../diffusion_edu/widgets/reverse_family.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/reverse_family.json", import.meta.url)));
const close = (found, wanted, tolerance = 1e-9) => assert.ok(Math.abs(found - wanted) <= tolerance * (1 + Math.abs(wanted)), `${found} is not ${wanted}`);

test("scores and densities agree", () => {
  for (const { t, score, density } of fixture.scores) {
    const parts = family.components(fixture.mixture, t);
    fixture.x.forEach((x, i) => {
      close(family.score(parts, x), score[i]);
      close(family.density(parts, x), density[i]);
    });
  }
});

test("steps agree, with any noise and any error of the score", () => {
  for (const { noise, error, t, s, z, x } of fixture.steps) {
    const parts = family.components(fixture.mixture, t);
    fixture.x.forEach((before, i) => close(family.reverseStep(parts, before, t, s, { noise, error }, z[i]), x[i]));
  }
});

test("the last step adds no noise", () => {
  const parts = family.components(fixture.mixture, 0.1);
  const settings = { noise: 1, error: 0 };
  assert.equal(family.reverseStep(parts, 0.3, 0.1, 0, settings, 5), family.reverseStep(parts, 0.3, 0.1, 0, settings, -5));
});

test("distances agree", () => {
  const law = family.components(fixture.mixture, 0);
  close(family.distance(fixture.points, law), fixture.distance);
  close(family.expectedDistance(law, 400), fixture.chance);
  assert.deepEqual(family.STEPS, fixture.allowed);
});

test("normals are normal, and a coarser grid has the same Brownian motion", () => {
  const z = family.normals(100_000, 1);
  const mean = z.reduce((a, b) => a + b) / z.length;
  const variance = z.reduce((a, b) => a + b * b) / z.length - mean ** 2;
  assert.ok(Math.abs(mean) < 4 / Math.sqrt(z.length), `mean ${mean}`);
  assert.ok(Math.abs(variance - 1) < 4 * Math.sqrt(2 / z.length), `variance ${variance}`);
  const fine = family.normals(320 * 3, 2);
  const [coarse, same] = [family.coarser(fine, 3, 40), family.coarser(fine, 3, 320)];
  fine.forEach((value, i) => close(same[i], value, 1e-12));
  const total = (all, steps) => Array.from({ length: steps }, (_, k) => all[3 * k + 1]).reduce((a, b) => a + b) / Math.sqrt(steps);
  close(total(coarse, 40), total(fine, 320), 1e-12);
});

test("every dynamics arrives where it should", () => {
  const count = 400;
  const fine = family.normals(320 * count, 5);
  const start = family.normals(count, 6);
  const law = family.components(fixture.mixture, 0);
  const chance = family.expectedDistance(law, count);
  for (const noise of [0, 1, 2]) {
    const { ts, xs } = family.run(fixture.mixture, { direction: "reverse", steps: 320, noise, error: 0 }, fine, start);
    assert.equal(ts[320], 0);
    assert.ok(family.distance(xs[320], law) < 3 * chance, `noise ${noise}`);
  }
});

test("three dynamics have one marginal at every time", () => {
  const count = 400;
  const [fine, noise] = [family.normals(320 * count, 7), family.normals(count, 8)];
  for (const lambda of [0, 1]) {
    const walk = family.run(fixture.mixture, { direction: "reverse", steps: 320, noise: lambda, error: 0 }, fine, noise);
    for (const t of [0.7, 0.3, 0.1]) {
      const { time, points } = family.crowdAt(walk, t);
      assert.ok(Math.abs(time - t) <= 1 / 640 + 1e-12);
      const law = family.components(fixture.mixture, time);
      assert.ok(family.distance(points, law) < 3 * family.expectedDistance(law, count), `noise ${lambda}, t ${t}`);
    }
  }
});

test("the words compare the crowds", () => {
  assert.match(family.describeCrowds(0.3, 1, [0.03, 0.03, 0.03], 0.03), /^At t = 0\.30 .*λ = 1\.00 0\.030.*three motions, one marginal/);
  assert.match(family.describeCrowds(0.3, 1, [0.03, 0.3, 0.03], 0.03), /: the reverse process has left the marginal/);
  assert.match(family.describeCrowds(0.3, 1, [0.3, 0.03, 0.03], 0.03), /: the way forward has left/);
  assert.match(family.describeCrowds(0.3, 1, [0.03, 0.3, 0.3], 0.03), /: the reverse process and the ODE have left/);
});

test("the words tell the dynamics, the error and the verdict", () => {
  const settings = { direction: "reverse", noise: 1, steps: 160, error: 0 };
  assert.match(family.describe(settings, 0.04, 0.04), /^Anderson.*The score is exact.*160-step.*0\.040, no more than chance/);
  assert.match(family.describe({ ...settings, noise: 0, error: -0.3 }, 0.4, 0.04), /^The ODE.*30 % too weak.*10\.0 times/);
  assert.match(family.describe({ ...settings, noise: 1.5 }, 0.04, 0.04), /^λ = 1\.50: more noise/);
  assert.match(family.describe({ ...settings, direction: "forward" }, 0.04, 0.04), /^Forward SDE/);
});
