// A digit with a known defect, noised part of the way and guided back; its pictures come from a run of the network.
// Python: diffusion_edu/widgets/partial_noising.py. Its numbers and those here agree to 1e-12 (tests/js).

import { bytesOf, make, makeChart, makeLegend, makePlayedSlider, makeRadios, makeWidget, makeWords } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

const LEVELS = 16;
const VISIBLE = 0.2; // a pixel is defective where it differs by more from the healthy one

/** Grey values in [-1, 1] of two pixels a byte, high nibble first. */
export function unpack(bytes) {
  const value = (level) => (level * 2) / (LEVELS - 1) - 1;
  return Float64Array.from({ length: 2 * bytes.length }, (_, i) => value(i % 2 ? bytes[i >> 1] & 15 : bytes[i >> 1] >> 4));
}

/** Chance that a positive has the higher score, ties counted half. */
export function auc(scores, positive) {
  let [sum, pairs] = [0, 0];
  for (let i = 0; i < scores.length; i++) {
    if (!positive[i]) continue;
    for (let j = 0; j < scores.length; j++) {
      if (positive[j]) continue;
      sum += scores[i] > scores[j] ? 1 : scores[i] === scores[j] ? 0.5 : 0;
      pairs += 1;
    }
  }
  return sum / pairs;
}

/** The difference map, what is defective, the map's AUC, and the mean change in the defect and outside it. */
export function measure(healthy, defective, returned) {
  const wrong = Array.from(defective, (value, i) => Math.abs(value - healthy[i]) > VISIBLE);
  const change = Array.from(defective, (value, i) => Math.abs(value - returned[i]));
  const mean = (kind) => {
    const some = change.filter((_, i) => wrong[i] === kind);
    return some.reduce((total, value) => total + value, 0) / some.length;
  };
  return { change, wrong, auc: auc(change, wrong), inside: mean(true), outside: mean(false) };
}

// ---- words ------------------------------------------------------------------------------------------

export const METHODS = [
  { name: "encoded", label: "encoded (nothing drawn)", colour: "#2f6db3", dash: "" },
  { name: "noised", label: "noised (fresh noise)", colour: "#d9822b", dash: "6 3" },
];

/** What is seen, in sentences. */
export function describe(name, method, t, { auc, inside, outside }) {
  const went = inside < 0.15 ? "The defect comes back" : inside < 0.5 ? "The defect is partly gone" : "The defect is gone";
  const rest = outside < 0.03 ? "and the rest is left alone" : outside < 0.1 ? "and the rest changes a little" : "and the rest of the digit changes too";
  const map = auc > 0.9 ? "a good map" : auc > 0.7 ? "a fair map" : auc > 0.55 ? "a poor map" : "no better than guessing";
  return `${name}, ${METHODS[method].name} up to L = ${t.toFixed(2)}. ${went}, ${rest}: a pixel of the defect changes by ${inside.toFixed(2)} on average, any other pixel by ${outside.toFixed(3)} (black is −1, white 1). The AUC of the difference is ${auc.toFixed(2)}: ${map}.`;
}

// ---- the picture ------------------------------------------------------------------------------------

const PANELS = ["digit with defect", "noised to L", "brought back", "difference", "the defect"];

/** A canvas and a function that paints values between low and high on it, black to white. */
function makePanel(title, [height, width]) {
  const canvas = make("canvas", { width, height, role: "img", "aria-label": title });
  const pen = canvas.getContext("2d");
  const paint = (values, low, high) => {
    const image = pen.createImageData(width, height);
    values.forEach((value, i) => {
      const level = Math.round(((value - low) / (high - low)) * 255);
      image.data.set([level, level, level, 255], 4 * i);
    });
    pen.putImageData(image, 0, 0);
  };
  return { node: make("figure", {}, canvas, make("div", { class: "quiet name" }, title)), paint };
}

function render(host) {
  const { model } = host;
  const [times, names, shape] = ["times", "names", "shape"].map((name) => model.get(name));
  const [size, all] = [shape[0] * shape[1], unpack(bytesOf(model.get("pixels")))];
  const [digits, count] = [names.length, times.length];
  const image = (index) => all.subarray(index * size, (index + 1) * size);
  const healthy = (digit) => image(digit);
  const defective = (digit) => image(digits + digit);
  const film = (part, digit, method, place) => image(2 * digits + ((part * digits + digit) * METHODS.length + method) * count + place);
  const found = (digit, method, place) => measure(healthy(digit), defective(digit), film(1, digit, method, place));

  const { root, get, set, live } = makeWidget(host, "edu-partial", "Part of the way and back", { place: [...times.keys()], digit: [...names.keys()], method: [...METHODS.keys()] });
  const slider = makePlayedSlider("how far to noise", count, () => get().place, (place) => set({ place }));
  const digit = makeRadios("digit", [...names.entries()], (digit) => set({ digit }));
  const method = makeRadios("noising", METHODS.map(({ label }, index) => [index, label]), (method) => set({ method }));
  const panels = PANELS.map((title) => makePanel(title, shape));
  const at = (t) => (t - times[0]) / (times.at(-1) - times[0]);
  const ends = [[0, `L = ${times[0].toFixed(2)}`], [1, `L = ${times.at(-1).toFixed(2)}`]];
  const chart = makeChart("AUC of this digit's difference map (0.5: guessing)", ends, [0, 1], [[0, "0"], [0.5, "0.5"], [1, "1"]]);
  const curves = METHODS.map(({ colour, dash }) => chart.addCurve(colour, dash));
  const dot = chart.addDot();
  const legend = makeLegend(METHODS.map(({ label, ...line }) => ({ ...line, name: label })));
  const text = make("div");
  root.append(slider.node, digit.node, method.node, make("div", { class: "panels" }, ...panels.map(({ node }) => node)),
    make("div", { class: "below" }, make("div", {}, chart.node, legend), text));
  const words = makeWords(text);
  const cache = new Map();

  function draw() {
    const { digit: d, method: m, place: p } = get();
    if (!cache.has(d)) cache.set(d, METHODS.map((_, index) => times.map((__, place) => found(d, index, place).auc)));
    const now = found(d, m, p);
    slider.show(p, `L = ${times[p].toFixed(2)}`, `L ${times[p].toFixed(2)}, AUC ${now.auc.toFixed(2)}`);
    digit.show(d);
    method.show(m);
    const truth = Array.from(defective(d), (value, i) => Math.abs(value - healthy(d)[i]));
    [defective(d), film(0, d, m, p), film(1, d, m, p)].forEach((values, i) => panels[i].paint(values, -1, 1));
    [now.change, truth].forEach((values, i) => panels[3 + i].paint(values, 0, 2));
    curves.forEach(({ draw: line }, index) => line(cache.get(d)[index].map((value, place) => [at(times[place]), value])));
    chart.moveCursor(at(times[p]));
    dot(at(times[p]), now.auc, METHODS[m].colour);
    words.say(describe(names[d], m, times[p], now));
  }

  return live(draw, words.stop, slider.stop);
}

export default { render };
