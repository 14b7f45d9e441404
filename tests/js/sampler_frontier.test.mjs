// The measured frontier: which cell is shown, its verdict, and its words.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as frontier from "../../diffusion_edu/widgets/sampler_frontier.mjs";

const { cells, places, best, limits } = JSON.parse(readFileSync(new URL("../../_build/fixtures/sampler_frontier.json", import.meta.url)));

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

test("the axis of distances begins below the lowest and ends at a round number", () => {
  assert.deepEqual(frontier.ladder(0.5, 20), [0.5, 1, 2, 5, 10, 20]);
  assert.deepEqual(frontier.limits(cells), limits);
  assert.deepEqual(limits, [0.5, 20]);
  assert.deepEqual(frontier.limits([{ frechet: 0.24, floor: 0.3, floor_error: 0.02 }]), [0.2, 10]);
});

test("labels keep their order and their distance, and stay inside", () => {
  const places = [50, 10, 11, 11, 98];
  const found = frontier.spreadOut(places, 12, 0, 100);
  const order = (values) => values.map((_, i) => i).sort((i, j) => values[i] - values[j] || i - j);
  assert.deepEqual(order(found), order(places));
  const sorted = [...found].sort((a, b) => a - b);
  sorted.slice(1).forEach((place, k) => assert.ok(place - sorted[k] >= 12 - 1e-9));
  assert.ok(sorted[0] >= 0 && sorted.at(-1) <= 100);
  assert.deepEqual(frontier.spreadOut([20, 60], 10, 0, 100), [20, 60]);
});

test("the words give the verdict", () => {
  const words = (sampler, n) => frontier.describe(cells, cells[frontier.placeOf(cells, sampler, n)]);
  assert.match(words("A", 5), /^A, 5 evaluations, grid even in t\. 300 digits.*\nIt can be told from the best cell, B with 9.*clearly less\. From 10 evaluations on, A cannot/);
  assert.match(words("A", 50), /It cannot be told from the best cell.*not clearly less with so few/);
  assert.match(words("B", 9), /No cell has a lower one.*chance flatters/);
  assert.match(words("B", 49), /B can be told from the best at its largest number/);
});
