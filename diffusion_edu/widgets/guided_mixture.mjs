// What guidance makes of an exact law on the line, live: the end of the guided ODE against the tilted density.
// Python: diffusion_edu/widgets/guided_mixture.py

import { between, fixed, make, makeChart, makeLegend, makeRadios, makeSlider, makeWidget, makeWords } from "./common.mjs";

/** [mean, deviation, weight] of each lump: of the whole law, and of the part that is asked for. */
export const EXAMPLES = {
  pair: { name: "one Gaussian in another", whole: [[0, 2, 1]], wanted: [[1, 1, 1]] },
  classes: { name: "two lumps of three", whole: [[-1, 0.5, 0.5], [0.2, 0.4, 0.25], [2, 0.4, 0.25]], wanted: [[0.2, 0.4, 0.5], [2, 0.4, 0.5]] },
};
export const LIMIT = 12; // of the log-SNR
const PER_UNIT = 10; // steps
const [FIRST, LAST] = [-4, 5]; // of x, in the picture
const even = (first, last, count) => Array.from({ length: count }, (_, i) => first + ((last - first) * i) / (count - 1));
export const STARTS = even(-4, 4, 161);
export const GRID = even(-10, 11, 1051);

/** Logarithms of the lumps' weighted densities at x, widened by the noise. */
const logs = (lumps, x, noise) =>
  lumps.map(([mean, std, weight]) => {
    const variance = std * std + noise * noise;
    return Math.log(weight) - (x - mean) ** 2 / (2 * variance) - Math.log(2 * Math.PI * variance) / 2;
  });

export function logDensity(lumps, x, noise = 0) {
  const values = logs(lumps, x, noise);
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

/** E[x_0 | z] for z = x_0 + noise eps. */
export function estimate(lumps, z, noise) {
  const values = logs(lumps, z, noise);
  const top = Math.max(...values);
  let [mass, sum] = [0, 0];
  lumps.forEach(([mean, std], k) => {
    const share = Math.exp(values[k] - top);
    mass += share;
    sum += share * (mean + ((std * std) / (std * std + noise * noise)) * (z - mean));
  });
  return sum / mass;
}

/** Where the guided ODE dz = -(z - x0_hat) / 2 dlog_snr leads the particles STARTS. Runge-Kutta of order 4. */
export function guidedEnds(example, w, low = -LIMIT, high = LIMIT) {
  const { whole, wanted } = EXAMPLES[example];
  const h = 1 / PER_UNIT;
  const slope = (z, snr, weight) => {
    const noise = Math.exp(-snr / 2);
    const null_ = estimate(whole, z, noise);
    return -(z - null_ - weight * (estimate(wanted, z, noise) - null_)) / 2;
  };
  return STARTS.map((start) => {
    let z = start * Math.exp(LIMIT / 2);
    for (let k = 0; k < 2 * LIMIT * PER_UNIT; k++) {
      const snr = -LIMIT + k * h;
      const weight = low <= snr + h / 2 && snr + h / 2 <= high ? w : 1;
      const k1 = slope(z, snr, weight);
      const k2 = slope(z + (h / 2) * k1, snr + h / 2, weight);
      const k3 = slope(z + (h / 2) * k2, snr + h / 2, weight);
      z += (h / 6) * (k1 + 2 * k2 + 2 * k3 + slope(z + h * k3, snr + h, weight));
    }
    return z;
  });
}

const bell = (u) => Math.exp((-u * u) / 2);

/** [x, density] of the law that the increasing map STARTS -> ends makes of N(0, 1). */
export const endDensity = (ends) =>
  ends.slice(1, -1).map((x, i) => [x, ((bell(STARTS[i + 1]) / Math.sqrt(2 * Math.PI)) * (STARTS[i + 2] - STARTS[i])) / (ends[i + 2] - ends[i])]);

/** The density proportional to p(x)^(1 - w) p(x | y)^w, on GRID. */
export function tiltedDensity(example, w) {
  const { whole, wanted } = EXAMPLES[example];
  const values = GRID.map((x) => (1 - w) * logDensity(whole, x) + w * logDensity(wanted, x));
  const top = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - top));
  const mass = powers.reduce((a, b) => a + b, 0) * (GRID[1] - GRID[0]);
  return powers.map((value) => value / mass);
}

/** [mean, variance] of x under weights. */
export function moments(x, weights) {
  const mass = weights.reduce((a, b) => a + b, 0);
  const mean = x.reduce((sum, value, i) => sum + weights[i] * value, 0) / mass;
  return [mean, x.reduce((sum, value, i) => sum + weights[i] * (value - mean) ** 2, 0) / mass];
}

/** Everything that is drawn. */
export function compute({ example, w, low, high }) {
  const ends = guidedEnds(example, w, low, high);
  const tilt = tiltedDensity(example, w);
  const wanted = GRID.map((x) => Math.exp(logDensity(EXAMPLES[example].wanted, x)));
  const summary = { ode: moments(ends, STARTS.map(bell)), tilt: moments(GRID, tilt), wanted: moments(GRID, wanted) };
  return { ends, tilt, wanted, summary };
}

// ---- words ------------------------------------------------------------------------------------------

/** What is seen, in sentences. */
export function describe({ w, low, high }, { ode, tilt, wanted }) {
  const facts = `The guided ODE ends with mean ${fixed(ode[0])} and variance ${fixed(ode[1], 3)}; the tilted density p(x) p(y | x)ʷ has ${fixed(tilt[0])} and ${fixed(tilt[1], 3)}; what was asked for has ${fixed(wanted[0])} and ${fixed(wanted[1], 3)}.`;
  if (low > -LIMIT || high < LIMIT)
    return `${facts}\n${high <= low ? "Guidance acts nowhere" : `Guidance acts only for a log-SNR from ${fixed(low, 0)} to ${fixed(high, 0)}`}; elsewhere the plain conditional law is followed.`;
  if (w === 1) return `${facts}\nw = 1: all three agree. This is plain conditional sampling.`;
  if (w === 0) return `${facts}\nw = 0: the condition is ignored; ODE and tilt agree on the whole law.`;
  if (w < 1) return `${facts}\nBetween 0 and 1 the condition is heard with half an ear. The ODE and the tilt already differ.`;
  return `${facts}\nThe blue and the orange law differ: following (1 − w) score(x_t) + w score(x_t | y) does not sample the tilted density. ${ode[1] < tilt[1] ? "The ODE's is the narrower one." : "Here the ODE's is the wider one."}`;
}

// ---- the picture ------------------------------------------------------------------------------------

const CURVES = [
  { key: "wanted", name: "asked for, p(x | y)", colour: "#6b7280", dash: "6 3" },
  { key: "tilt", name: "tilted, p(x) p(y | x)ʷ", colour: "#d9822b", dash: "" },
  { key: "ode", name: "end of the guided ODE", colour: "#2f6db3", dash: "" },
];
const place = (x) => (x - FIRST) / (LAST - FIRST);

function render(host) {
  const { root, get, set, live } = makeWidget(host, "edu-guided", "Guidance on the line", {
    example: Object.keys(EXAMPLES), w: between(0, 8), low: between(-LIMIT, LIMIT), high: between(-LIMIT, LIMIT),
  });
  const choices = makeRadios("law", Object.entries(EXAMPLES).map(([key, { name }]) => [key, name]), (example) => set({ example }));
  const weight = makeSlider("guidance weight w", 33, (position) => set({ w: position / 4 }));
  const from = makeSlider("guide from log-SNR", 2 * LIMIT + 1, (position) => set({ low: position - LIMIT, high: Math.max(position - LIMIT, get().high) }));
  const to = makeSlider("guide to log-SNR", 2 * LIMIT + 1, (position) => set({ high: position - LIMIT, low: Math.min(position - LIMIT, get().low) }));

  const chart = makeChart("Densities of x, and fifteen particles", [[0, `x = ${fixed(FIRST, 0)}`], [0.5, "0.5"], [1, String(LAST)]], [0, 1], []);
  const area = make("svg:path", { class: "area" });
  chart.plot.append(area);
  const curves = CURVES.map(({ key, colour, dash }) => ({ key, ...chart.addCurve(colour, dash) }));
  const particles = Array.from({ length: 15 }, (_, i) => [20 + 8 * i + 4, chart.addDot()]);
  const text = make("div");
  root.append(choices.node, weight.node, from.node, to.node, chart.node, makeLegend(CURVES), text);
  const words = makeWords(text);

  function draw() {
    const state = get();
    const { ends, tilt, wanted, summary } = compute(state);
    const shown = (curve) => {
      const inside = curve.map(([x, value]) => [place(x), value]).filter(([x]) => x >= 0 && x <= 1);
      return inside.length > 1 ? inside : [[0, 0], [1, 0]]; // all of it may lie beyond the chart
    };
    const onGrid = (values) => shown(GRID.map((x, i) => [x, values[i]]));
    const points = { wanted: onGrid(wanted), tilt: onGrid(tilt), ode: shown(endDensity(ends)) };
    const peak = Math.max(...Object.values(points).flatMap((curve) => curve.map(([, value]) => value)));
    const top = [0.5, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8, 11, 16].find((each) => peak <= each) ?? peak;
    for (const curve of curves) curve.draw(points[curve.key].map(([x, value]) => [x, value / top]));
    area.setAttribute("d", curves[2].curve.getAttribute("d") + `L${chart.x(points.ode.at(-1)[0])} ${chart.y(0)}L${chart.x(points.ode[0][0])} ${chart.y(0)}Z`);
    for (const [i, move] of particles) move(Math.min(1, Math.max(0, place(ends[i]))), 0.02, "#2f6db3");
    choices.show(state.example);
    weight.show(Math.round(state.w * 4), fixed(state.w), `guidance weight ${fixed(state.w)}`);
    const limit = (value) => (value === -LIMIT ? "all noise" : value === LIMIT ? "data" : fixed(value, 0));
    from.show(state.low + LIMIT, limit(state.low), `guide from log signal-to-noise ratio ${limit(state.low)}`);
    to.show(state.high + LIMIT, limit(state.high), `guide to log signal-to-noise ratio ${limit(state.high)}`);
    words.say(describe(state, summary));
  }

  return live(draw, words.stop);
}

export default { render };
