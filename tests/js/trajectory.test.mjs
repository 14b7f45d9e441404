// The words of the trajectory widget.

import assert from "node:assert/strict";
import test from "node:test";

import { inWords } from "../../diffusion_edu/widgets/common.mjs";
import { describe } from "../../diffusion_edu/widgets/trajectory.mjs";

test("noise and signal change places where log-SNR changes sign", () => {
  assert.match(describe(0.5, Math.log(1 / 8), 0.3), /t = 0\.50, log-SNR −2\.08: in x_t there is noise 8 times the signal.* by 0\.3 /);
  assert.match(describe(0.1, Math.log(8), 0.01), /signal 8 times the noise/);
});

test("at t = 0 there is no noise to speak of", () => {
  assert.match(describe(0, null, 0), /^t = 0: the finished images/);
});

test("numbers are written as in a book", () => {
  assert.deepEqual([0, 0.25, -2.456, 4.04e-5, 3e8, Infinity, -Infinity].map((x) => inWords(x)),
    ["0", "0.25", "−2.46", "4.04 × 10⁻⁵", "3.00 × 10⁸", "+∞", "−∞"]);
});
