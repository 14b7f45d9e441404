// What a link may ask for, and what it may not.

import assert from "node:assert/strict";
import test from "node:test";

import { between, queryOf, stateFrom, whole } from "../../diffusion_edu/widgets/common.mjs";

const initial = { t: 0.5, steps: 10, on: true, kind: "even" };
const allowed = { t: between(0, 1), steps: [1, 10, 100], on: [false, true], kind: ["even", "odd"] };

test("a state goes into a query and comes back", () => {
  const state = { t: 0.1 + 0.2, steps: 100, on: false, kind: "odd" };
  assert.deepEqual(stateFrom(queryOf(state, initial), initial, allowed), state);
  assert.equal(queryOf(initial, initial), "");
  assert.equal(queryOf({ ...initial, t: 0.4 }, initial), "t=0.4");
});

test("whole numbers are whole, and inside", () => {
  assert.deepEqual([0, 3, 1.5, -1, 4, NaN, "2", null].map(whole(0, 3)), [true, true, false, false, false, false, false, false]);
});

test("what is unknown, out of range, or of another type is ignored", () => {
  for (const query of ["t=1.01", "t=", "t=NaN", "t=Infinity", "steps=11", "on=1", "kind=blue", "sprites=x", "constructor=1", "__proto__=2", "%"])
    assert.deepEqual(stateFrom(query, initial, allowed), initial, query);
  assert.deepEqual(stateFrom("steps=7&t=0.25&x=1", initial, allowed), { ...initial, t: 0.25 });
});
