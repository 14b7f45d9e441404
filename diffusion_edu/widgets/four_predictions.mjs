// The four things that a network may predict, in the plane: arrows of each, and how long they are.
// Python: diffusion_edu/widgets/four_predictions.py. Its numbers and those here agree to 1e-9 (tests/js).

import { between, fixed, inWords, make, makeChart, makeLegend, makeSlider, makeWidget, makeWords } from "./common.mjs";

// ---- mathematics, as in diffusion_edu.process and diffusion_edu.analytic ---------------------------

const S = 0.008;
const START = (S / (1 + S)) * (Math.PI / 2);

/** alpha and sigma of the cosine schedule. */
export function coefficients(t) {
  const u = ((t + S) / (1 + S)) * (Math.PI / 2);
  return { alpha: Math.cos(u) / Math.cos(START), sigma: Math.sqrt(Math.sin(u - START) * Math.sin(u + START)) / Math.cos(START) };
}

/** Each lump's weight times its density at x_t; lumps have means, stds and weights. */
export function densities(lumps, t, [x, y]) {
  const { alpha, sigma } = coefficients(t);
  return lumps.means.map(([a, b], k) => {
    const variance = (alpha * lumps.stds[k]) ** 2 + sigma ** 2;
    return (lumps.weights[k] * Math.exp(-((x - alpha * a) ** 2 + (y - alpha * b) ** 2) / (2 * variance))) / (2 * Math.PI * variance);
  });
}

/** What the exact denoiser believes at x_t: the share of each lump, and all four predictions, from one mean of x_0. */
export function predict(lumps, t, point) {
  const { alpha, sigma } = coefficients(t);
  const parts = densities(lumps, t, point);
  const total = parts.reduce((sum, part) => sum + part, 0);
  const far = lumps.means.map((mean, k) => Math.hypot(point[0] - alpha * mean[0], point[1] - alpha * mean[1]) / Math.hypot(alpha * lumps.stds[k], sigma));
  const belief = total > 0 ? parts.map((part) => part / total) : far.map((each) => Number(each === Math.min(...far))); // far out: the nearest
  const x0 = [0, 1].map((i) => belief.reduce((sum, share, k) => {
    const gain = (alpha * lumps.stds[k] ** 2) / ((alpha * lumps.stds[k]) ** 2 + sigma ** 2);
    return sum + share * (lumps.means[k][i] + gain * (point[i] - alpha * lumps.means[k][i]));
  }, 0));
  const eps = point.map((x, i) => (x - alpha * x0[i]) / sigma);
  return { belief, x0, eps, score: eps.map((e) => -e / sigma), v: eps.map((e, i) => alpha * e - sigma * x0[i]) };
}

/** How far x0_hat is off when a prediction is off by 1. */
export function errors(t) {
  const { alpha, sigma } = coefficients(t);
  return { eps: sigma / alpha, x0: 1, score: sigma ** 2 / alpha, v: sigma };
}

/** What is seen now, in sentences. */
export function describe(lumps, t, point) {
  const { alpha, sigma } = coefficients(t);
  const { belief, x0, eps, score, v } = predict(lumps, t, point);
  const error = errors(t);
  const size = ([a, b]) => inWords(Math.hypot(a, b), 2);
  const shares = belief.map((share, k) => `${(100 * share).toFixed(0)} % ${"ABCDE"[k]}`).join(", ");
  const first = `t = ${fixed(t)}: x_t = ${fixed(alpha)} x_0 + ${fixed(sigma)} ε. From (${point.map((x) => fixed(x, 1)).join(", ")}) the belief is ${shares}, its mean x̂_0 = (${x0.map((x) => fixed(x)).join(", ")}). Lengths: ε̂ ${size(eps)}, score ${size(score)}, v̂ ${size(v)}.`;
  const second = `An error of 0.1 in ε̂ moves x̂_0 by ${inWords(0.1 * error.eps, 2)}, in v̂ by ${inWords(0.1 * error.v, 2)}.`;
  let verdict = "In the middle of time no choice is dangerous: all four say the same, in units of like size.";
  if (t > 0.8) verdict = "Near the noise ε̂ is almost x_t itself: easy to answer, and useless, since x̂_0 divides its error by a small α. An answer x̂_0 or v̂ (here nearly −x̂_0) needs no division.";
  if (t < 0.2) verdict = `Near the data x̂_0 is almost x_t itself, and ε from it would divide its error by a small σ: 0.1 becomes ${inWords((0.1 * alpha) / sigma, 2)}. v̂ is here nearly ε̂. The score is −ε̂/σ; it grows until the width of the lumps stops it, and for thin data, such as images, nearly without end.`;
  return `${first}\n${second} ${verdict}`;
}

// ---- the picture ------------------------------------------------------------------------------------

const REACH = 3;
const CELLS = 48;
const KINDS = [["eps", "ε̂, the noise", "#2f6db3", ""], ["x0", "x̂_0 − x_t, the way to the data", "#d9822b", "7 3"], ["score", "the score", "#3d9970", "2 3"], ["v", "v̂ = αε̂ − σx̂_0", "#8a5fb5", "9 3 2 3"]];
const at = ([x, y]) => [100 * (1 + x / REACH), 100 * (1 - y / REACH)];

/** An arrow as a piece of a path, from a place, with its tip so far away, in the units of the picture. */
function arrow([x, y], [dx, dy]) {
  const [u, w] = [0.3 * dx, 0.18 * dx];
  const [s, r] = [0.3 * dy, 0.18 * dy];
  const [a, b] = [x + dx, y + dy];
  const n = (value) => value.toFixed(1);
  return `M${n(x)} ${n(y)}L${n(a)} ${n(b)}M${n(a - u + r)} ${n(b - s - w)}L${n(a)} ${n(b)}L${n(a - u - r)} ${n(b - s + w)}`;
}

/** One field: the density of x_t, arrows whose length is squeezed, and at the point the arrow itself. */
function makeField([key, name, colour], onPoint) {
  const cloud = make("canvas", { width: CELLS, height: CELLS, "aria-hidden": "true" });
  const svg = make("svg:svg", { viewBox: "0 0 200 200", role: "img" });
  const [small, big, dot, target] = [make("svg:path", { class: "small" }), make("svg:path", { class: "big" }), make("svg:circle", { class: "here", r: 4 }), make("svg:circle", { class: "target", r: 5 })];
  svg.append(small, big, target, dot);
  const value = make("span", { class: "value" });
  const box = make("div", { class: "plane", style: `--colour: ${colour}` }, cloud, svg);
  const point = (event) => {
    if (!event.buttons) return;
    const edge = svg.getBoundingClientRect();
    const inside = (share) => Math.round(10 * REACH * (2 * Math.min(Math.max(share, 0), 1) - 1)) / 10;
    onPoint(inside((event.clientX - edge.left) / edge.width), -inside((event.clientY - edge.top) / edge.height));
  };
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointermove", point);
  const vector = (answer, from) => (key === "x0" ? answer.x0.map((x, i) => x - from[i]) : answer[key]);
  const grid = Array.from({ length: 81 }, (_, i) => [-REACH + ((i % 9) + 0.5) * (2 * REACH / 9), -REACH + (Math.floor(i / 9) + 0.5) * (2 * REACH / 9)]);
  function show(lumps, t, here) {
    small.setAttribute("d", grid.map((from) => {
      const [dx, dy] = vector(predict(lumps, t, from), from);
      const length = Math.hypot(dx, dy) || 1e-9;
      const reach = 17 * Math.tanh(Math.log1p(length) / 1.6); // long ones are squeezed
      const way = [(reach * dx) / length, (-reach * dy) / length];
      const [x, y] = at(from);
      return arrow([x - way[0] / 2, y - way[1] / 2], way);
    }).join(""));
    const answer = predict(lumps, t, here);
    const [dx, dy] = vector(answer, here);
    const scale = Math.min(1, 2 / (Math.hypot(dx, dy) || 1)); // no longer than 2
    big.setAttribute("d", arrow(at(here), [(100 / REACH) * dx * scale, (-100 / REACH) * dy * scale]));
    dot.setAttribute("transform", `translate(${at(here).map((x) => x.toFixed(1)).join(" ")})`);
    target.setAttribute("transform", `translate(${at(answer.x0).map((x) => x.toFixed(1)).join(" ")})`);
    value.textContent = inWords(Math.hypot(dx, dy), 2);
    svg.setAttribute("aria-label", `${name.replaceAll("_", "")}: at the point its length is ${value.textContent}`);
  }
  return { node: make("figure", {}, box, make("div", { class: "caption" }, ...makeLegend([{ name, colour }]).children, value)), cloud, show };
}

/** The density of x_t on a canvas of one blue. */
function paint(canvas, opacities) {
  const image = new ImageData(CELLS, CELLS);
  opacities.forEach((opacity, k) => image.data.set([47, 109, 179, opacity], 4 * k));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function render(host) {
  const { root, get, set, live } = makeWidget(host, "edu-four", "Four predictions from one belief", { t: between(0.01, 0.99), x: between(-REACH, REACH), y: between(-REACH, REACH) });
  const [means, stds, weights, lengths] = ["means", "stds", "weights", "lengths"].map((name) => host.model.get(name));
  const lumps = { means, stds, weights };
  const time = makeSlider("time t", 99, (k) => set({ t: (k + 1) / 100 }));
  const places = [["x", "x_t, across"], ["y", "x_t, up"]].map(([key, name]) => ({ key, ...makeSlider(name, 61, (k) => set({ [key]: (k - 30) / 10 })) }));
  const fields = KINDS.map((kind) => makeField(kind, (x, y) => set({ x, y })));
  const charts = [["Typical length (root mean square)", (key, i) => lengths[key][i]], ["Error of x̂₀ from an error of 1", (key, i) => errors((i + 1) / 100)[key]]].map(([title, value]) => {
    const chart = makeChart(title, [[0, "t = 0, data"], [0.5, "½"], [1, "noise, t = 1"]], [-2, 2], [[-2, "0.01"], [-1, "0.1"], [0, "1"], [1, "10"], [2, "100"]]);
    for (const [key, , colour, dash] of KINDS)
      chart.addCurve(colour, dash).draw(Array.from({ length: 99 }, (_, i) => [(i + 1) / 100, Math.log10(value(key, i))]));
    return chart;
  });
  root.append(time.node, ...places.map(({ node }) => node), make("div", { class: "fields" }, ...fields.map(({ node }) => node)),
    makeLegend([["eps", "ε̂"], ["x0", "x̂_0"], ["score", "score"], ["v", "v̂"]].map(([, name], k) => ({ name, colour: KINDS[k][2], dash: KINDS[k][3] }))),
    make("div", { class: "below" }, ...charts.map(({ node }) => node)));
  const words = makeWords(root);
  let painted = null;

  function draw() {
    const { t, x, y } = get();
    time.show(Math.round(100 * t) - 1, fixed(t), `t ${fixed(t)}`);
    for (const { key, show } of places) show(Math.round(10 * get()[key]) + 30, fixed(get()[key], 1), `${key === "x" ? "across" : "up"} ${fixed(get()[key], 1)}`);
    if (painted !== t) {
      const side = (i) => -REACH + ((i + 0.5) * 2 * REACH) / CELLS;
      const values = Array.from({ length: CELLS ** 2 }, (_, k) => densities(lumps, t, [side(k % CELLS), -side(Math.floor(k / CELLS))]).reduce((a, b) => a + b));
      const top = Math.max(...values);
      for (const { cloud } of fields) paint(cloud, values.map((value) => 110 * Math.sqrt(value / top)));
      painted = t;
    }
    for (const { show } of fields) show(lumps, t, [x, y]);
    for (const chart of charts) chart.moveCursor(t);
    words.say(describe(lumps, t, [x, y]));
  }

  return live(draw, words.stop);
}

export default { render };
