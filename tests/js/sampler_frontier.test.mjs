// The measured frontier: which cell is shown, its verdict, and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as frontier from "../../diffusion_edu/widgets/sampler_frontier.mjs";

const { cells, places, best } = JSON.parse(readFileSync(new URL("../../_build/fixtures/sampler_frontier.json", import.meta.url)));

test("the shown cell and the best one agree", () => {
  for (const [sampler, evaluations, place] of places) assert.equal(frontier.placeOf(cells, sampler, evaluations), place);
  assert.equal(frontier.bestOf(cells), best);
});

test("a difference is measured in combined errors", () => {
  const cell = (frechet, frechet_error) => ({ frechet, frechet_error });
  assert.equal(frontier.apart(cell(5, 0.3), cell(2, 0.4)), 6);
});

test("enough evaluations are those from which on no cell can be told from the best", () => {
  assert.equal(frontier.enough(cells, "A"), 10);
  assert.equal(frontier.enough(cells, "B"), null);
});

test("the words give the verdict", () => {
  const words = (sampler, n) => frontier.describe(cells, cells[frontier.placeOf(cells, sampler, n)]);
  assert.match(words("A", 5), /^A, 5 evaluations, grid even in t\. 300 digits.*It can be told from the best cell, B with 9.*clearly less\. From 10 evaluations on, A cannot/);
  assert.match(words("A", 50), /It cannot be told from the best cell.*not clearly less with so few/);
  assert.match(words("B", 9), /No cell has a lower one.*chance flatters/);
  assert.match(words("B", 49), /B can be told from the best at its largest number/);
});
