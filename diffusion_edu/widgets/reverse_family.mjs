// Three dynamics over one marginal: forward SDE, reverse SDE and ODE of a mixture on the line, and what lies between.
// Python: diffusion_edu/widgets/reverse_family.py

import { between, make, makeCloud, makePlay, makeRadios, makeSlider, makeWidget, makeWords, mulberry32, normalPairs } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

export const [BETA_MIN, BETA_MAX, EDGE, CELLS] = [0.1, 20, 3.4, 680];
export const STEPS = [5, 10, 20, 40, 80, 160, 320];
const FINEST = STEPS[STEPS.length - 1];

/** alpha, sigma^2, drift f and g^2 = beta of the schedule LinearBeta at t. */
export function coefficients(t) {
  const logAlpha = (-t * (2 * BETA_MIN + t * (BETA_MAX - BETA_MIN))) / 4;
  const beta = BETA_MIN + t * (BETA_MAX - BETA_MIN);
  return { alpha: Math.exp(logAlpha), variance: -Math.expm1(2 * logAlpha), f: -beta / 2, g2: beta };
}

/** The noised components at t: [weight, mean, variance] each. */
export function components({ means, stds, weights }, t) {
  const { alpha, variance } = coefficients(t);
  const total = weights.reduce((a, b) => a + b);
  return means.map((mean, k) => [weights[k] / total, alpha * mean, alpha ** 2 * stds[k] ** 2 + variance]);
}

/** Density of noised components at x. */
export const density = (parts, x) => parts.reduce((sum, [w, m, v]) => sum + (w * Math.exp(-((x - m) ** 2) / (2 * v))) / Math.sqrt(2 * Math.PI * v), 0);

/** Score of noised components at x; the largest exponent is taken out, so that nothing underflows. */
export function score(parts, x) {
  let largest = -Infinity;
  for (const [w, m, v] of parts) largest = Math.max(largest, Math.log(w) - (x - m) ** 2 / (2 * v) - Math.log(v) / 2);
  let [sum, pull] = [0, 0];
  for (const [w, m, v] of parts) {
    const weight = Math.exp(Math.log(w) - (x - m) ** 2 / (2 * v) - Math.log(v) / 2 - largest);
    sum += weight;
    pull += (weight * (m - x)) / v;
  }
  return pull / sum;
}

/** One Euler-Maruyama step of the reverse family from t to s < t, with the score times 1 + error; none of the noise if s = 0. */
export function reverseStep(parts, x, t, s, { noise, error }, z) {
  const { f, g2 } = coefficients(t);
  const slope = f * x - ((1 + noise ** 2) / 2) * g2 * (1 + error) * score(parts, x);
  return x - (t - s) * slope + (s === 0 ? 0 : noise * Math.sqrt(g2 * (t - s)) * z);
}

/** One Euler-Maruyama step of the forward SDE from t to u > t. */
export function forwardStep(x, t, u, z) {
  const { f, g2 } = coefficients(t);
  return x + (u - t) * f * x + Math.sqrt(g2 * (u - t)) * z;
}

/** Standard normal numbers from a seed. */
export const normals = (count, seed) => Float64Array.from(normalPairs(mulberry32(seed), Math.ceil(count / 2)).flat()).subarray(0, count);

/** Normals (steps, count) for a coarser grid of the same Brownian motion: increments of (FINEST, count) fine ones, added. */
export function coarser(fine, count, steps) {
  const ratio = FINEST / steps;
  const sums = new Float64Array(steps * count);
  for (let k = 0; k < FINEST; k++) for (let i = 0; i < count; i++) sums[Math.floor(k / ratio) * count + i] += fine[k * count + i];
  return sums.map((sum) => sum / Math.sqrt(ratio));
}

/** Points of a mixture from uniform-like normals: the component by the first normal's rank, the place by the second. */
function dataFrom({ means, stds, weights }, count, seed) {
  const [first, second] = [normals(count, seed), normals(count, seed + 1)];
  const law = distributionOf(components({ means: [0], stds: [1], weights: [1] }, 0));
  const total = weights.reduce((a, b) => a + b);
  return Float64Array.from(first, (z, i) => {
    let share = law[Math.max(0, Math.min(CELLS, Math.round(((z + EDGE) / (2 * EDGE)) * CELLS)))] * total;
    let k = 0;
    while (k < weights.length - 1 && share > weights[k]) share -= weights[k++];
    return means[k] + stds[k] * second[i];
  });
}

/** All positions, an array for each time of the walk, and the times. */
export function run(mixture, settings, fine, start) {
  const { direction, steps } = settings;
  const z = coarser(fine, start.length, steps);
  const ts = Array.from({ length: steps + 1 }, (_, k) => (direction === "reverse" ? 1 - k / steps : k / steps));
  const xs = [start];
  for (let k = 0; k < steps; k++) {
    const parts = components(mixture, ts[k]);
    const before = xs[k];
    xs.push(before.map((x, i) => {
      const fresh = z[k * before.length + i];
      return direction === "reverse" ? reverseStep(parts, x, ts[k], ts[k + 1], settings, fresh) : forwardStep(x, ts[k], ts[k + 1], fresh);
    }));
  }
  return { ts, xs };
}

/** Distribution function of components on the grid of CELLS + 1 points, by the trapezoidal rule. */
export function distributionOf(parts) {
  const law = new Float64Array(CELLS + 1);
  const place = (j) => -EDGE + (2 * EDGE * j) / CELLS;
  for (let j = 1; j <= CELLS; j++) law[j] = law[j - 1] + (density(parts, place(j - 1)) + density(parts, place(j))) / 2;
  return law.map((value) => value / law[CELLS]);
}

/** 1-Wasserstein distance of points from components: the area between the distribution functions. */
export function distance(points, parts) {
  const sorted = Float64Array.from(points, (x) => Math.min(Math.max(x, -EDGE), EDGE)).sort();
  const law = distributionOf(parts);
  let [below, area] = [0, 0];
  for (let j = 0; j <= CELLS; j++) {
    const place = -EDGE + (2 * EDGE * j) / CELLS;
    while (below < sorted.length && sorted[below] <= place) below++;
    area += Math.abs(below / sorted.length - law[j]) * (j === 0 || j === CELLS ? 0.5 : 1);
  }
  return (area * 2 * EDGE) / CELLS;
}

/** The distance that so many draws of the law itself have on average. */
export const expectedDistance = (parts, count) =>
  (Math.sqrt(2 / (Math.PI * count)) * distributionOf(parts).reduce((sum, F) => sum + Math.sqrt(Math.max(0, F * (1 - F))), 0) * 2 * EDGE) / CELLS;

/** The positions of a run at its time nearest to t, and that time. */
export function crowdAt({ ts, xs }, t) {
  const k = ts.reduce((best, each, i) => (Math.abs(each - t) < Math.abs(ts[best] - t) ? i : best), 0);
  return { time: ts[k], points: xs[k] };
}

// ---- words ------------------------------------------------------------------------------------------

/** What is seen, in sentences. */
export function describe({ direction, noise, steps, error }, found, chance) {
  const verdict = found < 1.6 * chance
    ? `no more than chance, ${chance.toFixed(3)}`
    : `${(found / chance).toFixed(1)} times what chance would do, ${chance.toFixed(3)}`;
  if (direction === "forward")
    return `Forward SDE, ${steps} steps: data at the right are blown to the left until one round lump remains. It uses no score, so λ and the score's error do nothing. Distance of the arrivals from the exact law at t = 1: ${found.toFixed(3)}, ${verdict}.`;
  const kind = noise === 0
    ? "The ODE, λ = 0: no noise at all. Paths are smooth and never cross (but for steps that are too long)."
    : noise === 1
      ? `Anderson's reverse SDE, λ = 1: as rough as the forward SDE${error === 0 ? ", and in law its film run backwards" : ""}.`
      : noise < 1
        ? `λ = ${noise.toFixed(2)}: less noise than the reverse SDE, and less pull by the score.`
        : `λ = ${noise.toFixed(2)}: more noise than the reverse SDE, held together by more score. Restless paths need small steps.`;
  const wrong = error === 0 ? "The score is exact." : `The score is ${Math.abs(100 * error).toFixed(0)} % too ${error > 0 ? "strong" : "weak"}.`;
  return `${kind} ${wrong} Distance of the ${steps}-step arrivals from the data: ${found.toFixed(3)}, ${verdict}.`;
}

/** The three crowds at time t, in a sentence; found: [forward, reverse, ODE], their distances from the marginal. */
export function describeCrowds(t, noise, found, chance) {
  const gone = ["the way forward", "the reverse process", "the ODE"].filter((_, i) => found[i] >= 1.6 * chance);
  const verdict = gone.length ? `${gone.join(" and ")} ${gone.length > 1 ? "have" : "has"} left the marginal` : "three motions, one marginal";
  return `At t = ${t.toFixed(2)} the crowd of the forward SDE lies ${found[0].toFixed(3)} from the exact law, of the reverse process with λ = ${noise.toFixed(2)} ${found[1].toFixed(3)}, of the ODE ${found[2].toFixed(3)}; chance alone would do ${chance.toFixed(3)}: ${verdict}.`;
}

// ---- the picture ------------------------------------------------------------------------------------

const [COUNT, SHOWN, BINS] = [400, 16, 34];
const [HEIGHT, GAP] = [300, 8];
const SIZES = { wide: [470, 76], narrow: [236, 46] }; // widths of the middle picture, and of each histogram beside it
const DYNAMICS = {
  "forward SDE": { direction: "forward" },
  "reverse SDE": { direction: "reverse", noise: 1 },
  ODE: { direction: "reverse", noise: 0 },
};
const toY = (x) => ((EDGE - x) / (2 * EDGE)) * HEIGHT;

/** The densities at all times, as a picture. */
const densityMap = (mixture) => {
  const parts = Array.from({ length: 120 }, (_, column) => components(mixture, 1 - column / 119));
  return makeCloud(120, 100, (column, row) => Math.min(0.85, 0.75 * Math.sqrt(density(parts[column], EDGE - ((row + 0.5) / 100) * 2 * EDGE)))).toDataURL();
};

/** A histogram that grows to one side of the picture, by at most `size`, with the exact density as a line. */
function makeHistogram(left, sign, size, parts, title) {
  const frame = make("svg:g", { transform: `translate(${left} 0)` });
  const peak = 1.25 * Math.max(...Array.from({ length: 200 }, (_, j) => density(parts, -EDGE + (j * 2 * EDGE) / 199)));
  const reach = (value) => sign * size * Math.min(1, value / peak);
  const bars = make("svg:path", { class: "bars" });
  const line = Array.from({ length: 171 }, (_, j) => -EDGE + (j * 2 * EDGE) / 170).map((x) => `${reach(density(parts, x)).toFixed(1)} ${toY(x).toFixed(1)}`);
  frame.append(bars, make("svg:path", { class: "curve", style: "--colour: #2f6db3", d: `M${line.join("L")}` }));
  frame.append(make("svg:text", { x: (sign * size) / 2, y: HEIGHT + 22, "text-anchor": "middle" }, title));
  return {
    frame,
    draw(points) {
      const counts = new Array(BINS).fill(0);
      for (const x of points) counts[Math.max(0, Math.min(BINS - 1, Math.floor(((x + EDGE) / (2 * EDGE)) * BINS)))]++;
      const height = HEIGHT / BINS;
      bars.setAttribute("d", counts.map((count, j) => `M0 ${(HEIGHT - (j + 1) * height).toFixed(1)}h${reach((count * BINS) / (points.length * 2 * EDGE)).toFixed(1)}v${(height - 1).toFixed(1)}H0z`).join(""));
    },
  };
}

/** Paths over time between two histograms; draw(run of the chosen kind, direction, t). */
function makeStage(laws, map, [width, side]) {
  const svg = make("svg:svg", { viewBox: `0 0 ${width + 2 * (side + GAP)} ${HEIGHT + 32}`, role: "img", "aria-label": "Paths in space and time, from noise at the left to data at the right" });
  const left = makeHistogram(side, -1, side, laws.forward, "t = 1");
  const right = makeHistogram(side + 2 * GAP + width, 1, side, laws.reverse, "t = 0");
  const plot = make("svg:svg", { x: side + GAP, y: 0, width, height: HEIGHT }); // clips what leaves it
  plot.append(make("svg:image", { href: map, width, height: HEIGHT, preserveAspectRatio: "none" }));
  const paths = Array.from({ length: SHOWN }, () => make("svg:path", { class: "path" }));
  const cursor = make("svg:path", { class: "cursor" });
  plot.append(...paths, cursor);
  svg.append(left.frame, right.frame, plot, make("svg:text", { x: side + GAP + width / 2, y: HEIGHT + 22, "text-anchor": "middle" }, "noise ← time → data"));
  return {
    svg,
    draw({ ts, xs }, direction, t) {
      paths.forEach((path, i) => path.setAttribute("d", "M" + ts.map((t, k) => `${((1 - t) * width).toFixed(1)} ${toY(xs[k][i]).toFixed(1)}`).join("L")));
      const [first, last] = direction === "reverse" ? [xs[0], xs.at(-1)] : [xs.at(-1), xs[0]];
      left.draw(first);
      right.draw(last);
      cursor.setAttribute("d", `M${((1 - t) * width).toFixed(1)} 0v${HEIGHT}`);
    },
  };
}

/** A histogram of one crowd, with the exact density as a line. */
function makeCrowd(name) {
  const [width, height, bins] = [200, 92, 40];
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Crowd of the ${name}, with the exact density` });
  const [bars, line] = [make("svg:path", { class: "bars crowd" }), make("svg:path", { class: "curve", style: "--colour: #2f6db3" })];
  const title = make("div", { class: "quiet" });
  svg.append(bars, line);
  return {
    node: make("figure", {}, title, svg),
    draw(text, points, parts) {
      title.textContent = text;
      const counts = new Array(bins).fill(0);
      for (const x of points) counts[Math.max(0, Math.min(bins - 1, Math.floor(((x + EDGE) / (2 * EDGE)) * bins)))]++;
      const curve = Array.from({ length: 101 }, (_, j) => density(parts, -EDGE + (2 * EDGE * j) / 100));
      const heights = counts.map((count) => (count * bins) / (points.length * 2 * EDGE));
      const up = (value) => (0.97 * height * value) / Math.max(1.35 * Math.max(...curve), ...heights);
      bars.setAttribute("d", heights.map((value, j) => `M${((j * width) / bins).toFixed(1)} ${height}v${(-up(value)).toFixed(1)}h${width / bins - 0.6}V${height}z`).join(""));
      line.setAttribute("d", `M${curve.map((value, j) => `${(j * width) / 100} ${(height - up(value)).toFixed(1)}`).join("L")}`);
    },
  };
}

function render(host) {
  const { model } = host;
  const mixture = { means: model.get("means"), stds: model.get("stds"), weights: model.get("weights") };
  const fine = normals(FINEST * COUNT, 1);
  const starts = { reverse: normals(COUNT, 2), forward: dataFrom(mixture, COUNT, 3) };
  const laws = { reverse: components(mixture, 0), forward: components(mixture, 1) };
  const { root, get, set, isNarrow, live } = makeWidget(host, "edu-family", "One marginal, many processes", {
    direction: ["forward", "reverse"], noise: between(0, 2), steps: STEPS, error: between(-0.5, 0.5), t: between(0, 1),
  });
  const choices = makeRadios("dynamics", Object.keys(DYNAMICS).map((name) => [name, name]), (name) => set(DYNAMICS[name]));

  const [map, figure] = [densityMap(mixture), make("figure")];
  let [stage, size] = [null, null]; // made anew for a phone
  const sliders = {
    noise: makeSlider("noise λ", 41, (position) => set({ direction: "reverse", noise: position / 20 })),
    steps: makeSlider("steps", STEPS.length, (position) => set({ steps: STEPS[position] })),
    error: makeSlider("score error", 21, (position) => set({ error: (position - 10) / 20 })),
    t: makeSlider("time t", 101, (position) => {
      play.stop();
      set({ t: position / 100 });
    }),
  };
  const back = () => {
    const t = Math.max(0, Math.round(100 * get().t) - 2) / 100;
    set({ t });
    return t > 0;
  };
  const play = makePlay(back, { begin: () => get().t <= 0 && set({ t: 1 }), every: 90 });
  const crowds = ["forward SDE", "reverse process", "ODE"].map(makeCrowd);
  const drive = make("div", { class: "drive" }, play.node, make("span", { class: "quiet" }, "back in time, from noise to data"));
  root.append(choices.node, figure, ...["noise", "steps", "error"].map((name) => sliders[name].node), sliders.t.node, drive, make("div", { class: "three" }, ...crowds.map(({ node }) => node)));
  const words = makeWords(root);

  let [asked, runs] = ["", []]; // forward, reverse, ODE: kept while only the time moves

  function draw() {
    const settings = get();
    const { direction, noise, steps, error, t } = settings;
    if (asked !== String([noise, steps, error]))
      runs = [{ direction: "forward" }, { direction: "reverse", noise }, { direction: "reverse", noise: 0 }].map((kind) => run(mixture, { noise, steps, error, ...kind }, fine, starts[kind.direction]));
    asked = String([noise, steps, error]);
    const chosen = runs[direction === "forward" ? 0 : 1];
    if (size !== (size = isNarrow() ? "narrow" : "wide")) {
      stage = makeStage(laws, map, SIZES[size]);
      figure.replaceChildren(stage.svg);
    }
    stage.draw(chosen, direction, t);
    choices.show(Object.keys(DYNAMICS).find((name) => Object.entries(DYNAMICS[name]).every(([trait, value]) => settings[trait] === value)));
    const percent = `${error > 0 ? "+" : error < 0 ? "−" : ""}${Math.abs(100 * error).toFixed(0)} %`;
    sliders.noise.show(Math.round(20 * noise), noise.toFixed(2), `lambda ${noise.toFixed(2)}${noise === 0 ? ", the ODE" : noise === 1 ? ", the reverse SDE" : ""}`);
    sliders.steps.show(STEPS.indexOf(steps), String(steps), `${steps} steps`);
    sliders.error.show(Math.round(20 * error) + 10, percent, `score ${error === 0 ? "exact" : `${Math.abs(100 * error).toFixed(0)} percent too ${error > 0 ? "strong" : "weak"}`}`);
    sliders.t.show(Math.round(100 * t), t.toFixed(2), `t ${t.toFixed(2)}`);
    const seen = runs.map((each) => crowdAt(each, t));
    const parts = components(mixture, seen[0].time);
    const titles = ["forward SDE", `reverse, λ = ${noise.toFixed(2)}`, "ODE"];
    crowds.forEach((crowd, i) => crowd.draw(titles[i], seen[i].points, parts));
    const gaps = seen.map(({ points }) => distance(points, parts));
    words.say(`${describe(settings, distance(chosen.xs.at(-1), laws[direction]), expectedDistance(laws[direction], COUNT))}\n${describeCrowds(t, noise, gaps, expectedDistance(parts, COUNT))}`);
  }

  return live(draw, words.stop, play.stop);
}

export default { render };
