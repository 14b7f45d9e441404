// The measured surface's words.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { apart, describe, lowest, percent } from "../../diffusion_edu/widgets/guidance_surface.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/guidance_surface.json", import.meta.url)));

test("the lowest cell is Python's", () => assert.deepEqual(lowest(fixture.cells.frechet), fixture.best));

test("shares and distances in standard errors", () => {
  assert.equal(percent([0.953, 0.009]), "95.3 ± 0.9 %");
  assert.equal(apart([3, 0.3], [4, 0.4]), 2);
});

test("words: the best cell, one that is far from it, and one that cannot be told from it", () => {
  assert.match(describe(fixture, 1, 2), /w = 2, labels dropped with p∅ = 0\.1: 70\.0 ± 2\.0 %.*\nThis is the lowest/);
  assert.match(describe(fixture, 0, 0), /The lowest of the surface is 3\.00 ± 0\.30, at w = 2 and p∅ = 0\.1, 7 standard errors below/);
  const blurred = structuredClone(fixture);
  blurred.cells.frechet[1][1] = [3.2, 0.3];
  assert.match(describe(blurred, 1, 1), /cannot be told from this one: 0\.5 standard errors/);
});
