// Two lumps on a line, a model of them that the reader bends, and what seven judges say.
// Python: diffusion_edu/widgets/metric_explorer.py. Its numbers and those here agree to 1e-8 (tests/js).

import { between, make, makeButton, makeChart, makeSlider, makeWidget, makeWords } from "./common.mjs";

export const DATA = { apart: 1, spread: 0.35, share: 0.5 };
export const LIMITS = { apart: [0, 2], spread: [0.1, 1.4], share: [0, 1] };
export const SIZES = [20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
const KEPT = 0.95; // mass of the region that counts as a law's support
const SPACING = 0.01;
const GRID = Array.from({ length: 1601 }, (_, i) => -8 + i * SPACING);
const LEVELS = Array.from({ length: 400 }, (_, i) => (i + 0.5) / 400);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const xlogx = (x) => (x > 0 ? x * Math.log(x) : 0);

/** (1 - share) N(-apart, spread^2) + share N(apart, spread^2) at x. */
export function density({ apart, spread, share }, x) {
  const bump = (place) => Math.exp(-(((x - place) / spread) ** 2) / 2);
  return ((1 - share) * bump(-apart) + share * bump(apart)) / (spread * Math.sqrt(2 * Math.PI));
}

/** E x ... E x^4 of the two lumps. */
function moments({ apart, spread, share }) {
  const [tilt, a, v] = [2 * share - 1, apart ** 2, spread ** 2];
  return [tilt * apart, a + v, tilt * apart * (a + 3 * v), a ** 2 + 6 * a * v + 3 * v ** 2];
}

/** Variance V, and the fourth central moment less V^2. */
function central([m1, m2, m3, m4]) {
  const variance = m2 - m1 ** 2;
  return [variance, m4 - 4 * m1 * m3 + 6 * m1 ** 2 * m2 - 3 * m1 ** 4 - variance ** 2];
}

function quantiles(p) {
  let [total, i, below] = [p[0] * SPACING, 0, 0];
  return LEVELS.map((level) => {
    while ((total < level || i < 1) && i < p.length - 1) {
      below = total;
      total += p[++i] * SPACING;
    }
    return GRID[i - 1] + (SPACING * (level - below)) / Math.max(total - below, 1e-300);
  });
}

/** The smallest region that holds KEPT of the mass, as a mask; equal densities are taken together. */
function support(p) {
  const ordered = [...p].sort((a, b) => b - a);
  let [mass, last] = [0, 0];
  while ((mass += ordered[last] * SPACING) < KEPT && last < p.length - 1) last++;
  return p.map((value) => value >= ordered[last] * (1 - 1e-9));
}

/** What the judges say about a model of which n images are seen. */
export function verdicts(model) {
  const [p, q] = [DATA, model].map((law) => GRID.map((x) => density(law, x)));
  const [m, d] = [moments(model), moments(DATA)];
  const [[variance, fourth], [vData]] = [central(m), central(d)];
  const std = Math.sqrt(variance);
  const gap = std - Math.sqrt(vData);
  const limit = (m[0] - d[0]) ** 2 + gap ** 2;
  const bias = variance + fourth / (4 * variance) - (gap * fourth) / (4 * std ** 3);
  const right = GRID.map((x) => 1 / (1 + Math.exp(((-2 * DATA.apart) / DATA.spread ** 2) * x)));
  const marginal = sum(q.map((value, i) => value * right[i])) * SPACING;
  const doubt = sum(q.map((value, i) => -value * (xlogx(right[i]) + xlogx(1 - right[i])))) * SPACING;
  const [a, b] = [quantiles(p), quantiles(q)];
  const [home, guest] = [support(p), support(q)];
  return {
    kl: sum(p.map((value, i) => value * (Math.log(value + 1e-300) - Math.log(q[i] + 1e-300)))) * SPACING,
    wasserstein: Math.sqrt(sum(a.map((value, i) => (value - b[i]) ** 2)) / a.length),
    frechet: limit + bias / model.n,
    frechet_limit: limit,
    kernel: 3 * (m[0] - d[0]) ** 2 + 3 * (m[1] - d[1]) ** 2 + (m[2] - d[2]) ** 2,
    precision: sum(q.map((value, i) => (home[i] ? value : 0))) * SPACING,
    recall: sum(p.map((value, i) => (guest[i] ? value : 0))) * SPACING,
    inception: Math.exp(-xlogx(marginal) - xlogx(1 - marginal) - doubt),
  };
}

// name, text, least and greatest value on its bar, whether small is good, digits
export const JUDGES = [
  ["kl", "log-likelihood lost", 0, 2, true, 2],
  ["wasserstein", "Wasserstein W2", 0, 1.5, true, 2],
  ["frechet", "Fréchet distance", 0, 1, true, 3],
  ["kernel", "kernel distance", 0, 6, true, 2],
  ["precision", "precision", 0, 1, false, 2],
  ["recall", "recall", 0, 1, false, 2],
  ["inception", "Inception score", 1, 2, false, 2],
];
export const MODELS = {
  "the data": { ...DATA },
  "one blob": { apart: 0, spread: 1.06, share: 0.5 },
  "too wide": { apart: 1, spread: 0.6, share: 0.5 },
  "too narrow": { apart: 1, spread: 0.12, share: 0.5 },
  "half lost": { apart: 1, spread: 0.35, share: 0 },
};

// ---- words ------------------------------------------------------------------------------------------

/** Judges that see nothing wrong, and judges that do. */
export function verdictLists(model) {
  const [found, home] = [verdicts(model), verdicts({ ...DATA, n: model.n })];
  const margin = { kl: 0.05, wasserstein: 0.1, frechet: 0.02, kernel: 0.1, precision: 0.04, recall: 0.04, inception: 0.04 };
  const worse = JUDGES.filter(([name, , , , small]) => (small ? found[name] - home[name] : home[name] - found[name]) > margin[name]);
  const better = JUDGES.filter(([name, , , , small]) => (small ? home[name] - found[name] : found[name] - home[name]) > margin[name]);
  const level = JUDGES.filter((judge) => !worse.includes(judge) && !better.includes(judge));
  return [worse, better, level].map((list) => list.map(([, text]) => text));
}

const listed = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);

/** What is seen, in sentences. */
export function describe(model) {
  const [worse, better, level] = verdictLists(model);
  const [found, home] = [verdicts(model), verdicts({ ...DATA, n: model.n })];
  const parts = [];
  if (!worse.length) parts.push("No judge finds this model clearly worse than the data.");
  else parts.push(`Clearly worse than the data, say: ${listed(worse)}.`);
  if (worse.length && level.length) parts.push(`Nothing clearly wrong, say: ${listed(level)}.`);
  if (better.length) parts.push(`Better than the data themselves (!), says: ${listed(better)}.`);
  const bias = found.frechet - found.frechet_limit;
  const far = `The Fréchet distance of ${model.n} images is ${found.frechet.toFixed(3)}`;
  if (bias < 0.0005) parts.push(`${far}; so many images add nothing to it.`);
  else parts.push(`${far}, of which ${bias.toFixed(3)} come from there being so few; ${model.n} of the data themselves would get ${home.frechet.toFixed(3)}.`);
  return parts.join(" ");
}

// ---- the picture ------------------------------------------------------------------------------------

const STEP = 0.01;
const SLIDERS = [["apart", "lumps at ±"], ["spread", "spread of a lump"], ["share", "share of the right"]];

/** A row for each judge: a bar, a mark where the data stand, the number. */
function makeRows() {
  const rows = JUDGES.map(([name, text, low, high, small, digits]) => {
    const [fill, mark, value] = [make("i"), make("b"), make("span", { class: "value" })];
    const node = make("div", { class: "judge" }, make("span", {}, `${text} ${small ? "↓" : "↑"}`), make("span", { class: "bar" }, fill, mark), value);
    const place = (number) => `${(100 * Math.min(1, Math.max(0, (number - low) / (high - low)))).toFixed(1)}%`;
    return {
      node,
      draw(found, home) {
        fill.style.width = place(found[name]);
        mark.style.left = place(home[name]);
        value.textContent = found[name].toFixed(digits);
      },
    };
  });
  return { nodes: rows.map(({ node }) => node), draw: (found, home) => rows.forEach((row) => row.draw(found, home)) };
}

function render(host) {
  const { root, get, set, live } = makeWidget(host, "edu-metric", "One model, seven judges", {
    ...Object.fromEntries(Object.entries(LIMITS).map(([name, limits]) => [name, between(...limits)])), n: SIZES,
  });
  const sliders = SLIDERS.map(([name, label]) => {
    const [low, high] = LIMITS[name];
    const slider = makeSlider(label, Math.round((high - low) / STEP) + 1, (position) => set({ [name]: Number((low + position * STEP).toFixed(2)) }));
    return { node: slider.node, draw: (state) => slider.show(Math.round((state[name] - low) / STEP), state[name].toFixed(2), `${label} ${state[name].toFixed(2)}`) };
  });
  const size = makeSlider("images n", SIZES.length, (position) => set({ n: SIZES[position] }));
  sliders.push({ node: size.node, draw: ({ n }) => size.show(SIZES.indexOf(n), String(n), `${n} images`) });
  const buttons = Object.entries(MODELS).map(([name, values]) => makeButton(name, () => set(values)));
  const chart = makeChart("Density of the data (blue) and of the model (orange)", [[0, "x = −3"], [0.5, "0"], [1, "3"]], [0, 1], []);
  const curves = [chart.addCurve("#2f6db3"), chart.addCurve("#d9822b", "6 3")];
  const rows = makeRows();
  root.append(
    make("div", { class: "drive", role: "group", "aria-label": "models" }, ...buttons),
    ...sliders.map(({ node }) => node),
    make("div", { class: "pair" }, chart.node, make("div", {}, make("div", { class: "quiet" }, "Verdicts (mark: what the data themselves get; ↓ small is good)"), ...rows.nodes)),
  );
  const words = makeWords(root);

  function draw() {
    const state = get();
    const shown = Array.from({ length: 241 }, (_, i) => -3 + i / 40);
    const values = [DATA, state].map((law) => shown.map((x) => density(law, x)));
    const top = [0.7, 1, 1.5, 2.5, 4.5].find((each) => Math.max(...values.flat()) <= each);
    curves.forEach((curve, k) => curve.draw(shown.map((x, i) => [i / 240, values[k][i] / top])));
    sliders.forEach((slider) => slider.draw(state));
    rows.draw(verdicts(state), verdicts({ ...DATA, n: state.n }));
    words.say(`Lumps at ±${state.apart.toFixed(2)}, spread ${state.spread.toFixed(2)}, share of the right ${state.share.toFixed(2)}. ${describe(state)}`);
  }

  return live(draw, words.stop);
}

export default { render };
