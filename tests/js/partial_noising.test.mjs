// The mathematics and the words of the partial noising widget, against Python's numbers.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { auc, describe, measure, METHODS, unpack } from "../../diffusion_edu/widgets/partial_noising.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../_build/fixtures/partial_noising.json", import.meta.url)));
const close = (found, wanted, name) => assert.ok(Math.abs(found - wanted) < 1e-12, `${name}: ${found} for ${wanted}`);

test("two pixels a byte, high nibble first", () => {
  unpack(fixture.bytes).forEach((value, i) => close(value, fixture.values[i], `pixel ${i}`));
});

test("ties count half", () => {
  const { scores, positive, auc: wanted } = fixture.ties;
  close(auc(scores, positive), wanted, "auc");
  assert.equal(auc([1, 1, 1], [true, false, false]), 0.5);
});

for (const [i, each] of fixture.cases.entries()) {
  test(`measures of picture ${i}`, () => {
    const found = measure(each.healthy, each.defective, each.returned);
    for (const name of ["auc", "inside", "outside"]) close(found[name], each[name], name);
    assert.ok(found.wrong.some(Boolean) && !found.wrong.every(Boolean));
  });
}

test("the words follow the numbers", () => {
  assert.deepEqual(METHODS.map(({ name }) => name), fixture.methods);
  assert.match(describe("7 with a gap", 0, 0.2, { auc: 0.5, inside: 0.01, outside: 0.005 }), /encoded up to L = 0\.20\. The defect comes back, and the rest is left alone.*0\.50: no better than guessing/);
  assert.match(describe("7 with a gap", 1, 0.8, { auc: 0.95, inside: 1.2, outside: 0.14 }), /noised up to L = 0\.80\. The defect is gone, and the rest of the digit changes too.*a good map/);
  assert.match(describe("7 with a gap", 1, 0.5, { auc: 0.8, inside: 0.3, outside: 0.05 }), /partly gone, and the rest changes a little.*a fair map/);
});
