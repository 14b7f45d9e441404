// Noise schedules side by side: curves, and one real digit noised under each of them.
// Python: diffusion_edu/widgets/schedule_explorer.py. Its numbers and those here agree to 1e-9 (tests/js).

import { between, bytesOf, inWords, make, makeChart, makePlayedSlider, makeSlider, makeWidget, makeWords, nearest, typeset, unique } from "./common.mjs";

// ---- mathematics, as in diffusion_edu.schedules ----------------------------------------------------

const preserving = (logAlpha) => ({ alpha: Math.exp(logAlpha), sigma: Math.sqrt(Math.abs(Math.expm1(2 * logAlpha))) });
const logistic = (z) => 1 / (1 + Math.exp(-z));
const chain = { key: "", logAlphas: [] };

/** log alpha after k = 0 ... T steps with linear betas; the last answer is kept. */
function logAlphas({ beta_min, beta_max, steps }) {
  const key = `${beta_min} ${beta_max} ${steps}`;
  if (chain.key !== key) {
    const slope = (beta_max - beta_min) / Math.max(1, steps - 1);
    Object.assign(chain, { key, logAlphas: [0] });
    for (let k = 0; k < steps; k++) chain.logAlphas.push(chain.logAlphas[k] + Math.log1p(-(beta_min + k * slope)) / 2);
  }
  return chain.logAlphas;
}

/** Families of schedules; `at(p, t)` gives alpha and sigma of x_t = alpha x_0 + sigma eps. */
export const FAMILIES = {
  linear: {
    name: "Linear β", colour: "#2f6db3", dash: "", parameters: ["beta_min", "beta_max", "steps"],
    at(p, t) {
      const near = Math.round(t * p.steps);
      const position = Math.abs(t * p.steps - near) < 1e-4 ? near : t * p.steps; // k / T up to rounding is k / T
      const k = Math.min(Math.floor(position), p.steps - 1);
      const [from, to] = logAlphas(p).slice(k, k + 2);
      return preserving(from + (position - k) * (to - from));
    },
  },
  cosine: {
    name: "Cosine", colour: "#d9822b", dash: "7 3", parameters: ["cosine_s"],
    at(p, t) {
      const u = ((t + p.cosine_s) / (1 + p.cosine_s)) * (Math.PI / 2);
      const u0 = (p.cosine_s / (1 + p.cosine_s)) * (Math.PI / 2);
      const noise = Math.max(0, Math.sin(u - u0) * Math.sin(u + u0));
      return { alpha: Math.max(0, Math.cos(u)) / Math.cos(u0), sigma: Math.sqrt(noise) / Math.cos(u0) };
    },
  },
  sigmoid: {
    name: "Sigmoid", colour: "#3d9970", dash: "2 3", parameters: ["sigmoid_tau"],
    at(p, t) {
      const [low, z, high] = [-3, -3 + 6 * t, 3].map((each) => logistic(each / p.sigmoid_tau));
      const share = (part) => Math.sqrt(Math.max(0, part) / (high - low));
      return { alpha: share(high - z), sigma: share(z - low) };
    },
  },
  ou: {
    name: "Ornstein-Uhlenbeck", colour: "#8a5fb5", dash: "9 3 2 3", parameters: ["horizon"],
    at: (p, t) => preserving(-p.horizon * t),
  },
  flow: {
    name: "Flow", colour: "#c0504d", dash: "12 4", parameters: [],
    at: (p, t) => ({ alpha: 1 - t, sigma: t }),
  },
  ve: {
    name: "Variance exploding", colour: "#6b7280", dash: "4 2", parameters: ["sigma_max"],
    at: (p, t) => ({ alpha: 1, sigma: 0.01 * Math.sqrt(Math.expm1(2 * Math.log(p.sigma_max / 0.01) * t)) }),
  },
};

/** alpha(t) and sigma(t) of a family under parameters p. */
export const coefficients = (family, p, t) => FAMILIES[family].at(p, t);

/** alpha(t)^2, the paper's alpha-bar. */
export const alphaBar = (family, p, t) => coefficients(family, p, t).alpha ** 2;

/** Share of the signal in the variance of x_t, for data of variance 1; alpha-bar where variance is preserved. */
export function signalShare(family, p, t) {
  const { alpha, sigma } = coefficients(family, p, t);
  return alpha ** 2 / (alpha ** 2 + sigma ** 2);
}

/** Log signal-to-noise ratio 2 log(alpha / sigma). */
export function logSnr(family, p, t) {
  const { alpha, sigma } = coefficients(family, p, t);
  return 2 * (Math.log(alpha) - Math.log(sigma));
}

/** x_t = alpha x_0 + sigma eps, for arrays of pixels. */
export function noised(family, p, t, x0, eps) {
  const { alpha, sigma } = coefficients(family, p, t);
  return Float64Array.from(x0, (value, i) => alpha * value + sigma * eps[i]);
}

/** KL divergence, in nats, of q(x_1 | x_0) from what sampling starts with, N(0, 1) or VE's N(0, sigma^2). */
export function klToNoise(family, p, x0) {
  const { alpha, sigma } = coefficients(family, p, 1);
  const energy = x0.reduce((sum, value) => sum + value * value, 0);
  if (family === "ve") return (alpha ** 2 * energy) / (2 * sigma ** 2);
  const narrower = family === "flow" ? 0 : -(alpha ** 2) - Math.log1p(-(alpha ** 2)); // sigma^2 - 1 - log sigma^2
  return (x0.length * narrower + alpha ** 2 * energy) / 2;
}

/** The best chance to tell x_1 from pure noise, bounded by Pinsker and by Bretagnolle and Huber. */
export const bestGuess = (kl) => (1 + Math.min(Math.sqrt(kl / 2), Math.sqrt(-Math.expm1(-kl)))) / 2;

// ---- the parameters: what a slider may be, and what happens to what it may not be -----------------

const series = (from, decades) =>
  Array.from({ length: decades * 10 }, (_, i) =>
    Number((from * 10 ** Math.floor(i / 10) * [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8][i % 10]).toPrecision(2)));
const evenly = (from, to, step) =>
  Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => Number((from + i * step).toPrecision(3)));
const BETAS = [0, ...series(1e-5, 5), 0.9, 0.99, 0.999];
const STEPS = [...evenly(1, 9, 1), ...series(10, 2), ...series(1000, 1).slice(0, 7)];

/** For each parameter its symbol and name, and the values along its slider. */
export const PARAMETERS = {
  beta_min: ["β_min", "first step", BETAS],
  beta_max: ["β_max", "last step", BETAS],
  steps: ["T", "number of steps", STEPS],
  cosine_s: ["s", "offset", [0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5]],
  sigmoid_tau: ["τ", "width", evenly(0.3, 3, 0.1)],
  horizon: ["S", "time horizon", evenly(0.5, 10, 0.5)],
  sigma_max: ["σ_max", "last noise", [1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 80, 100]],
};

/** The nearest allowed value (null for what is no number), and a note when that is not what was wanted. */
export function clampParameter(name, wanted) {
  const [symbol, , values] = PARAMETERS[name];
  const [low, high] = [values[0], values.at(-1)];
  const rule = name === "steps" ? `a whole number from ${low} to ${high}` : values === BETAS ? "in [0, 1)" : `in [${low}, ${high}]`;
  const number = wanted === "" ? NaN : Number(wanted);
  if (Number.isNaN(number)) return { value: null, note: `${symbol} must be ${rule}.` };
  let value = values === BETAS && number < 1 ? Math.max(number, 0) : Math.min(Math.max(number, low), high);
  if (name === "steps") value = Math.round(value);
  return { value, note: value === number ? "" : `${symbol} must be ${rule}: ${wanted} became ${value}.` };
}

// ---- words ------------------------------------------------------------------------------------------

const percent = (x) => (x > 0 && x < 0.001 ? "< 0.1 %" : `${(100 * x).toFixed(1)} %`);

/** What is seen at t, in a sentence. */
export function describeNow(family, p, t) {
  const { alpha, sigma } = coefficients(family, p, t);
  const snr = logSnr(family, p, t);
  const step = family === "linear" ? `, step ${Number((t * p.steps).toFixed(1))} of ${p.steps}` : "";
  const ratio = snr < 0 ? `noise ${inWords(Math.exp(-snr), 2)} times the signal` : `signal ${inWords(Math.exp(snr), 2)} times the noise`;
  const balance = t === 0 || !Number.isFinite(snr) ? (snr > 0 ? "no noise yet" : "no signal left") : ratio;
  return `t = ${t.toFixed(2)}${step}: x_t = ${inWords(alpha)} x_0 + ${inWords(sigma)} ε. Signal share ${percent(signalShare(family, p, t))}, log-SNR ${inWords(snr)}: ${balance}.`;
}

/** What is left of the picture at t = 1, in a sentence. */
export function describeEnd(family, p, x0) {
  const share = signalShare(family, p, 1);
  const name = ["ve", "flow"].includes(family) ? "the signal share is" : family === "linear" ? "ᾱ_T =" : "ᾱ =";
  if (share < 1e-20) return `At t = 1 ${name} 0: pure noise, log-SNR −∞. There x_0 cannot be computed from ε, so samplers start just before.`;
  const kl = klToNoise(family, p, x0);
  const verdict = kl < 1
    ? `whoever must tell the two apart is right at most ${(100 * bestGuess(kl)).toFixed(0)} % of the time.`
    : "too much is left, and sampling that begins with pure noise would begin in the wrong place.";
  return `At t = 1 ${name} ${inWords(share)}, log-SNR ${inWords(logSnr(family, p, 1))}. For this digit the KL divergence to pure noise is ${inWords(kl, 2)} nats: ${verdict}`;
}

// ---- the picture ------------------------------------------------------------------------------------

/** Pixels of a noised digit as grey, -1 black and 1 white; variance-exploding ones are first divided by their spread. */
function paint(canvas, family, p, t, x0, eps) {
  const { alpha, sigma } = coefficients(family, p, t);
  const spread = Math.max(1, Math.hypot(alpha, sigma));
  const side = Math.sqrt(x0.length);
  const image = new ImageData(side, side);
  noised(family, p, t, x0, eps).forEach((value, i) => {
    image.data.fill(127.5 * (value / spread + 1), 4 * i, 4 * i + 3); // rounded and clamped to 0 ... 255
    image.data[4 * i + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function render(host) {
  const { model } = host;
  const { root, get, set, live } = makeWidget(host, "edu-schedules", "Noise schedules side by side", {
    family: Object.keys(FAMILIES), t: between(0, 1),
    ...Object.fromEntries(Object.keys(PARAMETERS).map((name) => [name, (value) => clampParameter(name, value).value === value])),
  });
  const x0 = Float64Array.from(bytesOf(model.get("digit")), (value) => value / 127.5 - 1);
  const eps = new Float32Array(bytesOf(model.get("noise")).buffer);
  const side = Math.sqrt(x0.length);
  const time = makePlayedSlider("time t", 101, () => Math.round(100 * get().t), (position) => set({ t: position / 100 }));

  const group = unique();
  const tiles = Object.entries(FAMILIES).map(([family, { name, colour, dash }]) => {
    const input = make("input", { type: "radio", name: group, value: family });
    const canvas = make("canvas", { width: side, height: side, "aria-hidden": "true" });
    const share = make("span");
    const line = make("svg:svg", { viewBox: "0 0 90 5", "aria-hidden": "true" }, make("svg:path", { d: "M20 2.5h52", stroke: colour, "stroke-width": 3, "stroke-dasharray": dash }));
    input.addEventListener("change", () => set({ family }));
    return { family, input, canvas, share, node: make("label", { class: "tile", style: `--colour: ${colour}` }, input, canvas, line, make("b", {}, name), share) };
  });

  const times = [[0, "t = 0, data"], [0.5, "½"], [1, "noise, t = 1"]];
  const charts = [
    { value: signalShare, ...makeChart("Signal share α² / (α² + σ²), for VP ᾱ", times, [0, 1], [[0, "0"], [0.5, "½"], [1, "1"]]) },
    { value: logSnr, ...makeChart("Log signal-to-noise ratio", times, [-14, 14], [[-10, "−10"], [0, "0"], [10, "10"]]) },
  ];
  for (const chart of charts) {
    chart.lines = Object.entries(FAMILIES).map(([family, { colour, dash }]) => ({ family, ...chart.addCurve(colour, dash) }));
    chart.moveDot = chart.addDot();
    const point = (event) => {
      const box = chart.plot.getBoundingClientRect();
      if (event.buttons) set({ t: Math.round(100 * Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1)) / 100 });
    };
    chart.node.addEventListener("pointerdown", point);
    chart.node.addEventListener("pointermove", point);
  }

  const note = make("p", { class: "note quiet", role: "status" });
  const sliders = Object.entries(PARAMETERS).map(([parameter, [symbol, meaning, values]]) => {
    const name = `${symbol}, ${meaning}`;
    const box = make("input", { type: "number", step: "any", "aria-label": `${name}: exact value` });
    const slider = makeSlider(name, values.length, (position) => {
      note.replaceChildren();
      set({ [parameter]: values[position] });
    }, box);
    box.addEventListener("change", () => {
      const allowed = clampParameter(parameter, box.value);
      note.replaceChildren(...typeset(allowed.note));
      if (allowed.value !== null) set({ [parameter]: allowed.value });
      box.value = get()[parameter];
    });
    return { parameter, values, ...slider };
  });

  root.append(time.node, make("fieldset", { class: "tiles" }, make("legend", { class: "heard" }, "Schedule family"), ...tiles.map((each) => each.node)),
    make("div", { class: "charts" }, ...charts.map((each) => each.node)),
    make("div", { class: "parameters" }, ...sliders.map((each) => each.node), note));
  const words = makeWords(root);

  function drawCurves(p) {
    for (const { lines, value } of charts)
      for (const { family, draw } of lines) draw(Array.from({ length: 201 }, (_, i) => [i / 200, value(family, p, i / 200)]));
    for (const { parameter, values, show } of sliders) show(nearest(values, p[parameter]), p[parameter], inWords(p[parameter]));
  }

  let drawnFor = "";
  function draw() {
    const { t, family: chosen, ...p } = get();
    if (drawnFor !== JSON.stringify(p)) drawCurves(p);
    drawnFor = JSON.stringify(p);
    time.show(Math.round(100 * t), t.toFixed(2), `t ${t.toFixed(2)}, log signal-to-noise ratio ${inWords(logSnr(chosen, p, t))}`);
    for (const { family, input, canvas, share } of tiles) {
      paint(canvas, family, p, t, x0, eps);
      share.textContent = `signal ${percent(signalShare(family, p, t))}`;
      input.checked = family === chosen;
    }
    for (const chart of charts) {
      chart.moveCursor(t);
      chart.moveDot(t, chart.value(chosen, p, t), FAMILIES[chosen].colour);
      for (const { family, curve } of chart.lines) curve.classList.toggle("chosen", family === chosen);
    }
    for (const { parameter, node } of sliders) node.hidden = !FAMILIES[chosen].parameters.includes(parameter);
    words.say(`${FAMILIES[chosen].name}. ${describeNow(chosen, p, t)}\n${describeEnd(chosen, p, x0)}`);
  }

  return live(draw, words.stop, time.stop);
}

export default { render };
