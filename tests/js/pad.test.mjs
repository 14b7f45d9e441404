// The pad that digits are drawn on: strokes, their pixels and their place, against Python's numbers; drawings in links.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { queryOf, stateFrom } from "../../diffusion_edu/widgets/common.mjs";
import * as pad from "../../diffusion_edu/widgets/pad.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/draw_your_own.json", import.meta.url)));

/** Equal to 1e-9: both sides compute in float64, in another order. */
function close(found, wanted, name) {
  assert.equal(found.length, wanted.length, name);
  wanted.forEach((value, i) => assert.ok(found[i] === value || Math.abs(found[i] - value) < 1e-9, `${name}, ${i}: ${found[i]} for ${value}`));
}

for (const [i, each] of fixture.drawings.entries()) {
  test(`strokes ${i} become the same pixels and the same mask`, () => {
    close([...pad.distanceTo(each.strokes)], each.distance, "distance");
    close([...pad.rasterise(each.strokes)], each.image, "image");
    close([...pad.maskOf(each.strokes)], each.mask, "mask");
  });
}

test("a drawing is fitted as MNIST places its digits, and a fitted one stays", () => {
  const large = [[[1, 2], [26, 3], [4, 27]]];
  const before = pad.measure(large);
  assert.ok(before.long > 27);
  const strokes = pad.fit(large);
  const { long, column, row } = pad.measure(strokes);
  assert.ok(Math.abs(long - 20) < 0.2 && Math.abs(column - 14.5) < 0.1 && Math.abs(row - 14.5) < 0.1, `${long} ${column} ${row}`);
  const again = pad.fit(strokes);
  strokes[0].forEach(([x, y], i) => assert.ok(Math.hypot(x - again[0][i][0], y - again[0][i][1]) < 0.3));
  assert.deepEqual(pad.fit([]), []);
  assert.equal(pad.measure([]), null);
  for (const { strokes: [stroke] } of fixture.drawings.slice(1)) assert.ok(stroke.length);
});

test("a drawing goes into a link and comes back, and nothing else does", () => {
  const [first, drawn] = [{ strokes: [[[1, 2], [3, 4]]], place: 3 }, { strokes: fixture.drawings[0].strokes, place: 3 }];
  const rules = { strokes: pad.areStrokes, place: [3] };
  assert.deepEqual(stateFrom(queryOf(drawn, first), first, rules), drawn);
  for (const bad of ["[[[1,2],[3]]]", "[[[1,99]]]", "[[]]", "7", "{", "null", '[[["1","2"]]]'])
    assert.deepEqual(stateFrom(`strokes=${encodeURIComponent(bad)}`, first, rules), first, bad);
});
