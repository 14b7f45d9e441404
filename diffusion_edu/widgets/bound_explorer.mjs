// The bound of a diffusion chain as an area: its three terms, and what each step costs.
// Python: diffusion_edu/widgets/bound_explorer.py. Its numbers and those here agree to 1e-9 (tests/js).
// The data are two lumps on a line, at -1 and 1, of deviation SPREAD; the denoiser is the exact one.

import { fixed, make, makeChart, makeRadios, makeSlider, makeWidget, makeWords, nearest } from "./common.mjs";

export const SPREAD = 0.2;

// ---- mathematics ------------------------------------------------------------------------------------

const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x) => Math.exp(-softplus(-x));

/** log q(x) and q's score where the lumps lie at -a and a with variance v. */
function lumps(x, a, v) {
  const pull = (a * x) / v;
  const logDensity = Math.abs(pull) + Math.log1p(Math.exp(-2 * Math.abs(pull))) - Math.LN2 - (x * x + a * a) / (2 * v) - Math.log(2 * Math.PI * v) / 2;
  return { logDensity, score: (a * Math.tanh(pull) - x) / v };
}

/** Integral of f over [-9, 9], even f, by the trapezoid rule: exact to rounding for what is smooth and dies out. */
function integral(f, n = 360) {
  const h = 9 / n;
  let sum = f(0) / 2;
  for (let i = 1; i <= n; i++) sum += f(i * h);
  return 2 * h * sum;
}

/** E|eps - eps_hat|^2 of the exact denoiser at a log-SNR: 1 - sigma^2 E score^2. */
export function epsError(logSnr) {
  const alpha2 = sigmoid(logSnr);
  const sigma2 = sigmoid(-logSnr);
  const [a, v] = [Math.sqrt(alpha2), alpha2 * SPREAD ** 2 + sigma2];
  return 1 - sigma2 * integral((x) => {
    const { logDensity, score } = lumps(x, a, v);
    return Math.exp(logDensity) * score * score;
  });
}

/** The truth: the entropy of the data, in nats. */
export const ENTROPY = integral((x) => {
  const { logDensity } = lumps(x, 1, SPREAD ** 2);
  return -Math.exp(logDensity) * logDensity;
});

// linear beta: -log alpha^2 = b t + c t^2
const [B, C] = [0.1, 9.95];

/** Schedules: a name, the time of a log-SNR, the log-SNR of a time. */
export const SCHEDULES = {
  even: { name: "Even in log-SNR", time: (l) => -l, logSnr: (t) => -t },
  cosine: { name: "Cosine", time: (l) => (2 / Math.PI) * Math.atan(Math.exp(-l / 2)), logSnr: (t) => -2 * Math.log(Math.tan((Math.PI * t) / 2)) },
  linear: {
    name: "Linear β",
    time: (l) => (2 * softplus(-l)) / (B + Math.sqrt(B * B + 4 * C * softplus(-l))),
    logSnr: (t) => -Math.log(Math.expm1(t * (B + C * t))),
  },
  flow: { name: "Flow", time: (l) => sigmoid(-l / 2), logSnr: (t) => 2 * Math.log((1 - t) / t) },
};

/** The log-SNR at u in [0, 1], 0 at the data's end (high), 1 at the noise's (low), under a schedule. */
export function logSnrAt(schedule, low, high, u) {
  if (u <= 0 || u >= 1) return u <= 0 ? high : low;
  const { time, logSnr } = SCHEDULES[schedule];
  return logSnr(time(high) + (time(low) - time(high)) * u);
}

/** What each of the steps costs, in nats, from the data's end to the noise's. */
export function stepCosts(schedule, steps, low, high) {
  const levels = Array.from({ length: steps + 1 }, (_, i) => logSnrAt(schedule, low, high, i / steps));
  return levels.slice(1).map((level, i) => (Math.expm1(levels[i] - level) / 2) * epsError(level));
}

/** Prior, diffusion and reconstruction, in nats, averaged over the data. */
export function terms(schedule, steps, low, high) {
  const [alpha2, sigma2] = [sigmoid(low), sigmoid(-low)];
  const prior = (alpha2 * (1 + SPREAD ** 2) + sigma2 - 1 - Math.log(sigma2)) / 2;
  const reconstruction = (Math.log(2 * Math.PI) + 1 - high) / 2;
  const diffusion = stepCosts(schedule, steps, low, high).reduce((sum, cost) => sum + cost, 0);
  return { prior, diffusion, reconstruction, total: prior + diffusion + reconstruction };
}

/** The cost of a unit of u in continuous time, at n + 1 places: [u, nats]. */
export function costCurve(schedule, low, high, n = 240) {
  const at = (u) => logSnrAt(schedule, low, high, Math.min(Math.max(u, 0), 1));
  return Array.from({ length: n + 1 }, (_, i) => {
    const [from, to] = [Math.max(0, (i - 0.5) / n), Math.min(1, (i + 0.5) / n)];
    return [i / n, ((at(from) - at(to)) / (to - from) / 2) * epsError(at(i / n))];
  });
}

// ---- what the sliders may be ------------------------------------------------------------------------

export const STEPS = [1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 80, 100, 150, 200, 300, 500, 800, 1000];
export const HIGHS = Array.from({ length: 17 }, (_, i) => 2 + i / 2);
export const LOWS = Array.from({ length: 23 }, (_, i) => -10 + i / 2);

// ---- words ------------------------------------------------------------------------------------------

const number = (x) => (Math.abs(x) >= 1000 ? x.toPrecision(3) : fixed(x));

/** What is seen, in sentences. */
export function describe(schedule, steps, low, high) {
  const { prior, diffusion, reconstruction, total } = terms(schedule, steps, low, high);
  const gap = total - ENTROPY;
  const sum = `${steps} ${steps === 1 ? "step" : "steps"}, ${SCHEDULES[schedule].name}: prior ${number(prior)} + diffusion ${number(diffusion)} + reconstruction ${number(reconstruction)} = ${number(total)} nats. The truth, the entropy of the data, is ${number(ENTROPY)}: the bound is ${number(gap)} too high.`;
  if (prior > 0.05) return `${sum}\nThe noisy end still holds signal, and sampling starts without it: ${number(prior)} nats of prior term. No number of steps removes them.`;
  if (0.5 * Math.log(1 + Math.exp(-high) / SPREAD ** 2) > 0.05) return `${sum}\nThe denoiser is perfect, but the chain ends at data that are still noisy: the decoder's bell is too wide for the lumps.`;
  if (gap > 0.1) return `${sum}\nThe denoiser is perfect. What is lost are the corners of the steps above the curve: each pays for its noisier end.`;
  return `${sum}\nThe steps follow the curve. Now another schedule changes the shape of the curve and hardly the area.`;
}

// ---- the picture ------------------------------------------------------------------------------------

const [LEFT, RIGHT] = [-1, 8]; // nats that the bars show

/** Bars of the terms, each beginning where the one before ends, and a line at the truth. */
function makeBars() {
  const [width, left, row] = [242, 110, 29];
  const x = (nats) => left + ((Math.min(Math.max(nats, LEFT), RIGHT) - LEFT) / (RIGHT - LEFT)) * (width - 40);
  const svg = make("svg:svg", { viewBox: `0 0 ${width + left - 34} ${5 * row + 14}`, role: "img", "aria-label": "The terms of the bound" });
  svg.append(make("svg:path", { class: "rule", d: `M${x(0)} 2v${4 * row}` }));
  const names = ["prior", "diffusion", "reconstruction", "total"];
  const colours = ["#3d9970", "#2f6db3", "#d9822b", "#6b7280"];
  const bars = names.map((name, i) => {
    const bar = make("svg:rect", { class: "bar", y: i * row + 5, height: row - 10, style: `--colour: ${colours[i]}` });
    const value = make("svg:text", { y: i * row + 19 });
    svg.append(make("svg:text", { x: left - 8, y: i * row + 19, "text-anchor": "end" }, name), bar, value);
    return { bar, value };
  });
  svg.append(make("svg:path", { class: "cursor", d: `M${x(ENTROPY)} 2v${4 * row}` }));
  svg.append(make("svg:text", { x: x(ENTROPY) - 2, y: 4 * row + 16 }, `truth ${number(ENTROPY)}`));
  svg.append(make("svg:text", { x: x(0) - 5, y: 4 * row + 16, "text-anchor": "end" }, "0"));
  function draw({ prior, diffusion, reconstruction, total }) {
    const spans = [[0, prior], [prior, prior + diffusion], [prior + diffusion, total], [0, total]];
    for (const [i, [from, to]] of spans.entries()) {
      const [a, b] = [x(Math.min(from, to)), x(Math.max(from, to))];
      bars[i].bar.setAttribute("x", a.toFixed(1));
      bars[i].bar.setAttribute("width", Math.max(1, b - a).toFixed(1));
      bars[i].value.setAttribute("x", (b + 5).toFixed(1));
      bars[i].value.textContent = number([prior, diffusion, reconstruction, total][i]) + (Math.max(from, to) > RIGHT ? " →" : "");
    }
  }
  return { node: make("figure", {}, make("div", { class: "quiet" }, "Terms of the bound, in nats"), svg), draw };
}

function render(host) {
  const { root, get, set, live } = makeWidget(host, "edu-bound", "The bound as an area", { schedule: Object.keys(SCHEDULES), steps: STEPS, low: LOWS, high: HIGHS });
  const choices = makeRadios("schedule", Object.entries(SCHEDULES).map(([key, { name }]) => [key, name]), (schedule) => set({ schedule }));
  const sliders = [
    ["steps", "number of steps", STEPS, (value) => String(value)],
    ["high", "end at the data", HIGHS, (value) => `λ = ${number(value)}`],
    ["low", "end at the noise", LOWS, (value) => `λ = ${number(value)}`],
  ].map(([name, label, values, words]) => ({ name, values, words, ...makeSlider(label, values.length, (i) => set({ [name]: values[i] })) }));

  const chart = makeChart("Nats a unit of time (cut off at 16)", [[0, "data"], [1, "noise"]], [0, 16], [[0, "0"], [5, "5"], [10, "10"], [15, "15"]]);
  const stairs = make("svg:path", { class: "stairs" });
  chart.plot.append(stairs);
  const { draw: drawCurve } = chart.addCurve("#2f6db3");
  const bars = makeBars();
  const text = make("div");
  root.append(
    choices.node,
    ...sliders.map(({ node }) => node),
    make("div", { class: "below" }, chart.node, bars.node),
    text,
  );
  const words = makeWords(text);

  function draw() {
    const { schedule, steps, low, high } = get();
    choices.show(schedule);
    for (const { name, values, words: inText, show } of sliders) {
      const value = get()[name];
      show(nearest(values, value), inText(value), name === "steps" ? `${value} steps` : `log signal-to-noise ratio ${value}`);
    }
    drawCurve(costCurve(schedule, low, high));
    const heights = stepCosts(schedule, steps, low, high).map((cost) => Math.min(cost * steps, 17));
    stairs.setAttribute("d", `M0 ${chart.y(0)}` + heights.map((h, i) => `L${chart.x(i / steps)} ${chart.y(h, 9)}H${chart.x((i + 1) / steps)}`).join("") + `V${chart.y(0)}Z`);
    bars.draw(terms(schedule, steps, low, high));
    words.say(describe(schedule, steps, low, high));
  }

  return live(draw, words.stop);
}

export default { render };
