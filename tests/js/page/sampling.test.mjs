// Sampling in a page: noise, grids, samplers and requests against Python's.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { mulberry32 } from "../../../diffusion_edu/widgets/common.mjs";
import { checked, makeSchedule, normals, readFacts, timeGrid, toUint8, trajectory } from "../../../diffusion_edu/widgets/sampling.mjs";

const fixture = JSON.parse(readFileSync(new URL("../../../_build/fixtures/sampling.json", import.meta.url)));

function close(found, wanted, tolerance, what) {
  assert.equal(found.length, wanted.length, what);
  found.forEach((value, i) => assert.ok(Math.abs(value - wanted[i]) <= tolerance * Math.max(1, Math.abs(wanted[i])), `${what} [${i}]: ${value}, Python has ${wanted[i]}`));
}

test("uniform numbers are Python's, exactly", () => {
  const { seed, values } = fixture.uniforms;
  assert.deepEqual(Array.from(values, mulberry32(seed)), values);
});

test("normal numbers are Python's", () => {
  const { seed, values } = fixture.normals;
  close(normals(seed, values.length, 40), values, 1e-12, "normals");
});

test("time grids are Python's", () => {
  for (const { schedule, spacing, start, ts } of fixture.grids) {
    close(timeGrid(makeSchedule(schedule), 6, spacing, start ?? undefined), ts, 1e-12, `${schedule.name} ${spacing}`);
  }
});

/** The toy network of tests/test_sampling_in_a_page.py. */
const toy = async (x, t, y) => x.map((value, i) => {
  const row = Math.floor((i * y.length) / x.length);
  return 0.6 * value - 0.5 * t[row] * value + 0.04 * (y[row] - 5);
});

test("every request is answered as Python does", async () => {
  assert.ok(fixture.runs.length > 15);
  for (const { facts, request, states } of fixture.runs) {
    const what = JSON.stringify([facts.schedule.name, request]);
    let count = 0;
    for await (const { step, of, t, x_t, x0_hat } of trajectory(toy, facts, request)) {
      assert.deepEqual([step, of], [count, states.length - 1], what);
      close([t], [states[step].t], 1e-12, `${what} t`);
      close(x_t, states[step].x_t, 1e-6, `${what} x_t at step ${step}`); // the network sees float32
      close(x0_hat, states[step].x0_hat, 1e-6, `${what} x0_hat at step ${step}`);
      count++;
    }
    assert.equal(count, states.length, what);
  }
});

test("what makes no sense is refused in one sentence", () => {
  const { facts, requests } = fixture.nonsense;
  for (const request of requests) {
    assert.throws(() => checked(request, { ...facts, schedule: makeSchedule(facts.schedule) }), /must (be|hold)/, JSON.stringify(request));
  }
  assert.throws(() => makeSchedule({ name: "Sigmoid" }), /knows no schedule Sigmoid/);
});

test("pixels: halves go to the even neighbour, as in Python", () => {
  assert.deepEqual([...toUint8([-2, -1, 0, 1, 3])], [0, 0, 128, 255, 255]);
});

test("an ONNX file's metadata are read", () => {
  const bytes = Uint8Array.from(atob(fixture.onnx), (character) => character.charCodeAt(0));
  assert.deepEqual(readFacts(bytes), { clip: [-1, 1], long: "é".repeat(300), target: "v" });
});
