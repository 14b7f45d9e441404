// Samplers with the exact score of a mixture in the plane, at equal numbers of evaluations.
// Python: diffusion_edu/widgets/sampler_race.py

import { make, makeChart, makeCloud, makeLegend, makeRadios, makeSlider, makeWidget, makeWords, mulberry32, normalPairs } from "./common.mjs";

// ---- mathematics: the schedule Cosine -------------------------------------------------------------------

export const [OFFSET, T_MIN, T_MAX, EDGE] = [0.008, 1e-3, 0.995, 2.6];
export const GRIDS = ["uniform", "log_snr", "edm"];
const START = ((OFFSET / (1 + OFFSET)) * Math.PI) / 2;

/** alpha, sigma, noise level sigma / alpha, and half the log-SNR at t. */
export function schedule(t) {
  const rise = (t * Math.PI) / (2 * (1 + OFFSET));
  const alpha = Math.max(0, Math.cos(rise + START)) / Math.cos(START);
  const sigma = Math.sqrt(Math.max(0, Math.sin(rise) * Math.sin(rise + 2 * START))) / Math.cos(START);
  return { t, alpha, sigma, level: sigma / alpha, half: Math.log(alpha / sigma) };
}

/** The time at which the noise level has the given value. */
export function timeAtLevel(level) {
  return ((Math.acos(Math.cos(START) / Math.sqrt(1 + level ** 2)) - START) * 2 * (1 + OFFSET)) / Math.PI;
}

/** Decreasing times: from T_MAX to 0 in so many steps. */
export function timeGrid(steps, spacing) {
  const share = (i) => (steps === 1 ? 0 : i / (steps - 1));
  if (spacing === "uniform") return Array.from({ length: steps + 1 }, (_, i) => T_MAX * (1 - i / steps));
  const [high, low] = [schedule(T_MAX).level, schedule(T_MIN).level];
  const levels = Array.from({ length: steps }, (_, i) => (spacing === "edm"
    ? (high ** (1 / 7) + share(i) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    : high * (low / high) ** share(i)));
  return [...levels.map(timeAtLevel), 0];
}

/** The exact guess of x_0 and of the noise at a point (x, y) of time `at`, with the mixture's means, stds and weights. */
export function denoise({ means, stds, weights }, [x, y], at) {
  const { alpha, sigma } = at;
  const variances = stds.map((c) => alpha ** 2 * c ** 2 + sigma ** 2);
  const logs = means.map(([a, b], k) => Math.log(weights[k]) - ((x - alpha * a) ** 2 + (y - alpha * b) ** 2) / (2 * variances[k]) - Math.log(variances[k]));
  const largest = Math.max(...logs);
  let [total, u, v] = [0, 0, 0];
  means.forEach(([a, b], k) => {
    const weight = Math.exp(logs[k] - largest);
    const gain = (alpha * stds[k] ** 2) / variances[k];
    total += weight;
    u += weight * (a + gain * (x - alpha * a));
    v += weight * (b + gain * (y - alpha * b));
  });
  const x0 = [u / total, v / total];
  return { x0, eps: [(x - alpha * x0[0]) / sigma, (y - alpha * x0[1]) / sigma] };
}

// ---- mathematics: the samplers ---------------------------------------------------------------------------

const ADAMS = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];
export const SAMPLERS = ["DDIM", "Heun", "iPNDM-4", "DPM-Solver++(2M)", "ancestral"];
const mix = (terms) => [0, 1].map((i) => terms.reduce((sum, [factor, vector]) => sum + factor * vector[i], 0));

/** The straight line in x / alpha along `eps` to the noise level of `to`. */
const along = (x, eps, from, to) => mix([[to.alpha / from.alpha, x], [to.sigma - (to.alpha / from.alpha) * from.sigma, eps]]);

/** One step from `from` to `to` at the point x; `past` holds earlier guesses, the newest first; z is noise. */
export function step(name, mixture, x, from, to, past, z) {
  const guess = { ...denoise(mixture, x, from), at: from };
  past.unshift(guess);
  if (past.length > 4) past.pop();
  const last = to.t === 0;
  if (name === "Heun" && !last) {
    const second = denoise(mixture, along(x, guess.eps, from, to), to).eps;
    return along(x, mix([[0.5, guess.eps], [0.5, second]]), from, to);
  }
  if (name === "iPNDM-4" && !last) return along(x, mix(ADAMS[past.length - 1].map((w, j) => [w, past[j].eps])), from, to);
  if (name === "DPM-Solver++(2M)" && !last && past.length > 1) {
    const ahead = (to.half - from.half) / (2 * (from.half - past[1].at.half));
    const target = mix([[1 + ahead, guess.x0], [-ahead, past[1].x0]]);
    return mix([[to.sigma / from.sigma, x], [to.alpha - (to.sigma / from.sigma) * from.alpha, target]]);
  }
  if (name === "ancestral") {
    const fresh = last ? 0 : (to.sigma / from.sigma) * Math.sqrt(from.sigma ** 2 - ((from.alpha / to.alpha) * to.sigma) ** 2);
    return mix([[to.alpha, guess.x0], [Math.sqrt(to.sigma ** 2 - fresh ** 2), guess.eps], [fresh, z ?? [0, 0]]]);
  }
  return along(x, guess.eps, from, to);
}

/** Steps that fit into so many evaluations, and the evaluations they need. */
export const stepsFor = (name, evaluations) => (name === "Heun" ? Math.floor((evaluations + 1) / 2) : evaluations);
export const spent = (name, evaluations) => (name === "Heun" ? 2 * stepsFor(name, evaluations) - 1 : evaluations);

/** All states of one walk from x; noise(k) gives the normal pair of step k. */
export function walk(name, mixture, x, times, noise = () => [0, 0]) {
  const path = [x];
  const past = [];
  for (let k = 0; k + 1 < times.length; k++) path.push(step(name, mixture, path[k], times[k], times[k + 1], past, noise(k)));
  return path;
}

/** The ends of the ODE, by 400 steps of order 2. */
export function exactEnds(mixture, starts) {
  const times = timeGrid(400, "log_snr").map(schedule);
  return starts.map((x) => walk("DPM-Solver++(2M)", mixture, x, times).at(-1));
}

/** Mean distance between two lists of points. */
export const distance = (left, right) => left.reduce((sum, [x, y], i) => sum + Math.hypot(x - right[i][0], y - right[i][1]), 0) / left.length;

/** Root mean square, over 24 directions, of the 2-Wasserstein distance of the projections of two equally large sets. */
export function sliced(left, right) {
  let total = 0;
  for (let d = 0; d < 24; d++) {
    const [c, s] = [Math.cos((d * Math.PI) / 24), Math.sin((d * Math.PI) / 24)];
    const project = (points) => Float64Array.from(points, ([x, y]) => c * x + s * y).sort();
    const [a, b] = [project(left), project(right)];
    total += a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length;
  }
  return Math.sqrt(total / 24);
}

/** So many standard normal pairs from a seed. */
const pairs = (count, seed) => normalPairs(mulberry32(seed), count);

// ---- words ------------------------------------------------------------------------------------------

const GRID_NAMES = { uniform: "even in t", log_snr: "even in log-SNR", edm: "EDM, ρ = 7" };

/** What is seen, in sentences; found: { error, rival, law, floor }. */
export function describe({ sampler, evaluations, grid }, { error, rival, law, floor }) {
  const used = spent(sampler, evaluations);
  const begin = `${sampler}, ${used} evaluations, grid ${GRID_NAMES[grid]}.`;
  const lawful = `Distance of 200 samples from the data's law: ${law.toFixed(2)} (two exact sets: ${floor.toFixed(2)}).`;
  if (sampler === "ancestral") return `${begin} It draws fresh noise in each step, so its ends are not those of the ODE and only their law can be judged. ${lawful}`;
  const compared = sampler === "DDIM"
    ? "It goes straight on for the whole of each step: where the exact path bends, it misses the turn."
    : rival === null ? "DDIM would need more than 50 evaluations on this grid to be as close." : rival <= used
      ? `DDIM is as close with ${rival} evaluations: here the higher order does not pay.`
      : `DDIM needs ${rival} evaluations on this grid to be as close.`;
  return `${begin} Mean distance of the ends from the exact ones (crosses): ${error.toFixed(3)}. ${compared} ${lawful}`;
}

// ---- the picture ------------------------------------------------------------------------------------

const [COLOURS, PATHS, POINTS, SIZE] = [["#2f6db3", "#3d9970", "#8a5fb5", "#c0504d"], 8, 200, 320];
const COUNTS = [4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50];
const across = (n) => Math.log(n / 4) / Math.log(12.5);
const toX = (x) => ((x + EDGE) / (2 * EDGE)) * SIZE;
const place = ([x, y]) => `${toX(x).toFixed(1)} ${(SIZE - toX(y)).toFixed(1)}`;

/** The density of the data, as a picture. */
const densityMap = ({ means, stds, weights }) =>
  makeCloud(104, 104, (i, j) => {
    const [x, y] = [((i + 0.5) / 52 - 1) * EDGE, (1 - (j + 0.5) / 52) * EDGE];
    const density = means.reduce((sum, [a, b], k) => sum + (weights[k] / (2 * Math.PI * stds[k] ** 2)) * Math.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * stds[k] ** 2)), 0);
    return Math.min(0.8, 0.75 * Math.sqrt(density));
  }).toDataURL();

function render(host) {
  const { model } = host;
  const mixture = { means: model.get("means"), stds: model.get("stds"), weights: model.get("weights") };
  const starts = pairs(POINTS, 4);
  const exact = exactEnds(mixture, starts);
  const real = exactEnds(mixture, pairs(POINTS, 9));
  const floor = sliced(exact, real);
  const { root, get, set, live } = makeWidget(host, "edu-race", "Samplers at equal numbers of evaluations", { sampler: SAMPLERS, evaluations: Array.from({ length: 47 }, (_, i) => i + 4), grid: GRIDS });
  const samplers = makeRadios("sampler", SAMPLERS.map((name) => [name, name]), (sampler) => set({ sampler }));
  const grids = makeRadios("grid of times", GRIDS.map((grid) => [grid, GRID_NAMES[grid]]), (grid) => set({ grid }));
  const plane = make("svg:svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": "Walks from noise to data in the plane; crosses mark the exact ends" });
  plane.append(make("svg:image", { href: densityMap(mixture), width: SIZE, height: SIZE }));
  const paths = Array.from({ length: PATHS }, () => make("svg:path", { class: "path" }));
  const dots = make("svg:path", { class: "nodes" });
  plane.append(...paths, dots, make("svg:path", { class: "cross", d: exact.slice(0, PATHS).map((end) => `M${place(end)}m-4 -4l8 8m-8 0l8 -8`).join("") }));
  const chart = makeChart("mean error of the end, against evaluations", [4, 10, 20, 50].map((n) => [across(n), String(n)]), [-3, 0.5], [[-3, "10⁻³"], [-2, "10⁻²"], [-1, "10⁻¹"], [0, "1"]]);
  const curves = COLOURS.map((colour) => chart.addCurve(colour));
  const dot = chart.addDot();
  const key = makeLegend(COLOURS.map((colour, i) => ({ colour, name: SAMPLERS[i] })));
  const slider = makeSlider("evaluations", 47, (position) => set({ evaluations: position + 4 }));
  root.append(samplers.node, grids.node, slider.node, make("div", { class: "pair" }, make("figure", {}, plane), make("div", {}, chart.node, key)));
  const words = makeWords(root);

  const known = {}; // errors by grid: for each solver [[evaluations, error], ...]
  const endsOf = (name, n, grid, points) => {
    const times = timeGrid(stepsFor(name, n), grid).map(schedule);
    return points.map((x, i) => walk(name, mixture, x, times, (k) => pairs(1, 1 + k * POINTS + i)[0]).at(-1));
  };
  const errorsOn = (grid) => (known[grid] ??= COLOURS.map((_, s) => COUNTS.filter((n) => spent(SAMPLERS[s], n) >= 4).map((n) => [spent(SAMPLERS[s], n), distance(endsOf(SAMPLERS[s], n, grid, starts.slice(0, 100)), exact)])));
  const rivals = {}; // the same of DDIM, at every number of evaluations, from fewer points
  const rivalsOn = (grid) => (rivals[grid] ??= Array.from({ length: 47 }, (_, i) => [i + 4, distance(endsOf("DDIM", i + 4, grid, starts.slice(0, 60)), exact)]));

  function draw() {
    const { sampler, evaluations: n, grid } = get();
    const times = timeGrid(stepsFor(sampler, n), grid).map(schedule);
    const walks = starts.slice(0, PATHS).map((x, i) => walk(sampler, mixture, x, times, (k) => pairs(1, 1 + k * POINTS + i)[0]));
    walks.forEach((path, i) => paths[i].setAttribute("d", "M" + path.map(place).join("L")));
    dots.setAttribute("d", walks.flat().map((point) => `M${place(point)}h0`).join(""));
    const ends = endsOf(sampler, n, grid, starts);
    const error = distance(ends, exact);
    const table = errorsOn(grid);
    curves.forEach(({ curve, draw }, s) => {
      draw(table[s].map(([m, value]) => [across(m), Math.log10(value)]));
      curve.classList.toggle("faint", SAMPLERS[s] !== sampler);
    });
    const used = spent(sampler, n);
    const own = SAMPLERS.indexOf(sampler);
    chart.moveCursor(across(Math.max(4, used)));
    if (own < COLOURS.length) dot(across(Math.max(4, used)), Math.min(0.5, Math.max(-3, Math.log10(error))), COLOURS[own]);
    else dot(across(used), 9, "transparent");
    const rival = rivalsOn(grid).find(([, value]) => value <= distance(ends.slice(0, 60), exact))?.[0] ?? null;
    samplers.show(sampler);
    grids.show(grid);
    slider.show(n - 4, String(used), `${used} evaluations`);
    words.say(describe({ sampler, evaluations: n, grid }, { error, rival, law: sliced(ends, real), floor }));
  }

  return live(draw, words.stop);
}

export default { render };
