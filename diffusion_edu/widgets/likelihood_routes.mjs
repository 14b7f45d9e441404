// One data point in the plane, four routes to its log-density, all computed here from the mixture's closed form.
// Python: diffusion_edu/widgets/likelihood_routes.py. Its numbers and those here agree to 1e-7 (tests/js).

import { between, fixed, make, makeSlider, makeWidget, makeWords, nearest } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

const MEANS = [[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]];
const STDS = [0.3, 0.4, 0.25];
const WEIGHTS = [0.2, 0.5, 0.3];
const [BETA_MIN, BETA_MAX, T_MIN] = [0.1, 20, 1e-3];
const LOG_2_PI = Math.log(2 * Math.PI);

export const STEPS = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
const CHAIN = 16; // steps of the bound's chain for one of the solver
export const ERRORS = Array.from({ length: 16 }, (_, i) => i / 50);
export const ROUTES = {
  exact: { name: "exact density", colour: "#6b7280" },
  ode: { name: "ODE, exact divergence", colour: "#2f6db3" },
  equal: { name: "ODE, probe (1, 1)", colour: "#3d9970" },
  opposite: { name: "ODE, probe (1, −1)", colour: "#8a5fb5" },
  bound: { name: "bound (ELBO)", colour: "#c0504d" },
};

/** alpha, sigma, f and g^2 of LinearBeta at t. */
export function coefficients(t) {
  const logAlpha = (-t * (2 * BETA_MIN + t * (BETA_MAX - BETA_MIN))) / 4;
  const beta = BETA_MIN + t * (BETA_MAX - BETA_MIN);
  return { alpha: Math.exp(logAlpha), sigma: Math.sqrt(-Math.expm1(2 * logAlpha)), f: -beta / 2, g2: beta };
}

/** Increasing times from T_MIN to 1, evenly spaced in the log signal-to-noise ratio. */
export function grid(steps) {
  const [first, last] = [T_MIN, 1].map((t) => {
    const { alpha, sigma } = coefficients(t);
    return 2 * Math.log(alpha / sigma);
  });
  const rise = BETA_MAX - BETA_MIN;
  return Array.from({ length: steps + 1 }, (_, i) => {
    if (i === 0 || i === steps) return i ? 1 : T_MIN;
    const logAlpha = -Math.log1p(Math.exp(-(first + ((last - first) * i) / steps))) / 2;
    return (-BETA_MIN + Math.sqrt(BETA_MIN ** 2 - 4 * rise * logAlpha)) / rise;
  });
}

/** The place of the data point: on a line through two of the lumps. */
export const point = (place) => [-2.1 + 4.2 * place, 1.4 * place];

/** log q_t, its gradient and its Hessian [xx, xy, yy] at x, for the mixture scaled by alpha and blurred by sigma. */
export function density([x, y], alpha, sigma) {
  const parts = MEANS.map(([a, b], k) => {
    const variance = (alpha * STDS[k]) ** 2 + sigma ** 2;
    const pull = [(alpha * a - x) / variance, (alpha * b - y) / variance];
    return { pull, variance, log: Math.log(WEIGHTS[k]) - (variance * (pull[0] ** 2 + pull[1] ** 2)) / 2 - LOG_2_PI - Math.log(variance) };
  });
  const top = Math.max(...parts.map(({ log }) => log));
  const sum = parts.reduce((total, { log }) => total + Math.exp(log - top), 0);
  const score = [0, 0];
  const hessian = [0, 0, 0];
  for (const { pull: [p, q], variance, log } of parts) {
    const share = Math.exp(log - top) / sum;
    score[0] += share * p;
    score[1] += share * q;
    hessian[0] += share * (p * p - 1 / variance);
    hessian[1] += share * p * q;
    hessian[2] += share * (q * q - 1 / variance);
  }
  const [s, r] = score;
  return { log: top + Math.log(sum), score, hessian: [hessian[0] - s * s, hessian[1] - s * r, hessian[2] - r * r] };
}

/** Estimated noise at x: exact, plus a smooth error. */
export function noise(x, t, error) {
  const { alpha, sigma } = coefficients(t);
  const { score } = density(x, alpha, sigma);
  return [error * Math.cos(2 * x[1]) - sigma * score[0], error * Math.sin(2 * x[0]) - sigma * score[1]];
}

/** d/dt of [x, y, log-determinant exact, with probe (1, 1), with probe (1, -1)]. */
export function slope(state, t, error) {
  const { alpha, sigma, f, g2 } = coefficients(t);
  const x = [state[0], state[1]];
  const { hessian: [xx, xy, yy] } = density(x, alpha, sigma);
  const eps = noise(x, t, error);
  const gain = g2 / (2 * sigma);
  const trace = 2 * f - gain * sigma * (xx + yy);
  const mixed = gain * (-2 * sigma * xy + error * (2 * Math.cos(2 * x[0]) - 2 * Math.sin(2 * x[1]))); // J_12 + J_21
  return [f * x[0] + gain * eps[0], f * x[1] + gain * eps[1], trace, trace + mixed, trace - mixed];
}

/** States along the flow from data to noise by Heun's method, each [x, y, three log-determinants]. */
export function path(x0, steps, error) {
  const ts = grid(steps);
  const { alpha } = coefficients(ts[0]);
  const states = [[alpha * x0[0], alpha * x0[1], 0, 0, 0]];
  for (let i = 0; i < steps; i++) {
    const [state, h] = [states[i], ts[i + 1] - ts[i]];
    const first = slope(state, ts[i], error);
    const last = slope(state.map((value, j) => value + h * first[j]), ts[i + 1], error);
    states.push(state.map((value, j) => value + (h * (first[j] + last[j])) / 2));
  }
  return states;
}

const TICKS = Array.from({ length: 13 }, (_, i) => 0.75 * i - 4.5);
const NODES = TICKS.flatMap((a) => TICKS.map((b) => ({ a, b, weight: Math.exp(-(a * a + b * b) / 2) })));
const MASS = NODES.reduce((sum, { weight }) => sum + weight, 0);

/** Evidence lower bound, in nats, of the chain with so many steps. */
export function bound(x0, steps, error) {
  const ts = grid(steps);
  const snr = ts.map((t) => coefficients(t)).map(({ alpha, sigma }) => (alpha / sigma) ** 2);
  const end = coefficients(1);
  let total = (end.alpha ** 2 * (x0[0] ** 2 + x0[1] ** 2)) / 2 + end.sigma ** 2 - 1 - 2 * Math.log(end.sigma);
  for (let i = 1; i <= steps; i++) {
    const { alpha, sigma } = coefficients(ts[i]);
    let miss = 0;
    for (const { a, b, weight } of NODES) {
      const eps = noise([alpha * x0[0] + sigma * a, alpha * x0[1] + sigma * b], ts[i], error);
      miss += weight * ((a - eps[0]) ** 2 + (b - eps[1]) ** 2);
    }
    total += ((snr[i - 1] / snr[i] - 1) / 2) * (miss / MASS);
  }
  return -(total + 1 + LOG_2_PI - Math.log(snr[0]));
}

/** The log-density of the data point by each route, in nats. */
export function routes(place, steps, error) {
  const x0 = point(place);
  const last = path(x0, steps, error).at(-1);
  const prior = -(last[0] ** 2 + last[1] ** 2) / 2 - LOG_2_PI + 2 * Math.log(coefficients(T_MIN).alpha);
  return { exact: density(x0, 1, 0).log, ode: prior + last[2], equal: prior + last[3], opposite: prior + last[4], bound: bound(x0, CHAIN * steps, error) };
}

// ---- words ------------------------------------------------------------------------------------------

const nats = (x) => (Math.abs(x) < 1000 ? fixed(x) : x.toPrecision(2).replace("-", "−"));

/** What is seen, in sentences. */
export function describe(place, steps, error) {
  const found = routes(place, steps, error);
  const off = found.ode - found.exact;
  const verdict = Math.abs(off) < 0.02 ? "within 0.02 of the truth" : `${nats(Math.abs(off))} too ${off > 0 ? "high" : "low"}`;
  const half = Math.abs(found.equal - found.opposite) / 2;
  const gap = found.exact - found.bound;
  const under = gap < 0.02 ? "touches the truth" : `lies ${nats(gap)} below it`;
  const score = error === 0 ? "The score is exact." : `The score has an error of ${error.toFixed(2)}: the ODE and the bound now speak of two models, and more steps lead neither to the truth.`;
  return `The truth is ${nats(found.exact)} nats. The ODE with ${steps} steps of Heun says ${nats(found.ode)}, ${verdict}. One random probe says ${nats(found.equal)} or ${nats(found.opposite)}, each half of the time: ${nats(half)} off, right on average. The bound of a chain with ${CHAIN * steps} steps ${under}. ${score}`;
}

// ---- the picture ------------------------------------------------------------------------------------

const [LOW, HIGH] = [-8, 1]; // of the axis, in nats
const inPlane = ([x, y]) => `${(50 * (x + 3)).toFixed(1)} ${(50 * (3 - y)).toFixed(1)}`;
const polyline = (states) => "M" + states.map(inPlane).join("L");
const across = (value) => 24 + (266 * (Math.min(Math.max(value, LOW), HIGH) - LOW)) / (HIGH - LOW);

/** The plane: lumps, faint flow lines, the line of the data point. */
function makePlane() {
  const svg = make("svg:svg", { viewBox: "25 25 250 250", role: "img", "aria-label": "The plane: three lumps, and the line from the data point to its noise" });
  MEANS.forEach((mean, k) => {
    const [cx, cy] = inPlane(mean).split(" ");
    for (const r of [1, 2]) svg.append(make("svg:circle", { class: "lump", cx, cy, r: 50 * r * STDS[k] }));
  });
  svg.append(make("svg:circle", { class: "prior", cx: 150, cy: 150, r: 100 }));
  const around = MEANS.flatMap(([a, b], k) => Array.from({ length: 8 }, (_, i) => {
    const angle = (i * Math.PI) / 4;
    return [a + 1.3 * STDS[k] * Math.cos(angle), b + 1.3 * STDS[k] * Math.sin(angle)];
  }));
  const faint = around.map(() => make("svg:path", { class: "faint" }));
  const fine = make("svg:path", { class: "fine" });
  const chosen = make("svg:path", { class: "curve", style: `--colour: ${ROUTES.ode.colour}` });
  const nodes = make("svg:path", { class: "nodes", style: `--colour: ${ROUTES.ode.colour}` });
  const start = make("svg:circle", { class: "dot", r: 6, style: "--colour: #d9822b" });
  const end = make("svg:circle", { class: "dot", r: 5, style: `--colour: ${ROUTES.ode.colour}` });
  const label = (words, dy) => make("svg:text", { class: "name", dy }, words);
  const [data, code] = [label("data", -10), label("noise", 18)];
  svg.append(...faint, fine, chosen, nodes, start, end, data, code);
  let drawn = null;
  return {
    node: make("figure", {}, make("div", { class: "quiet" }, "From data to noise. Dashed: the exact way. Ring: two deviations of the noise"), svg),
    draw(x0, steps, error) {
      if (drawn !== error) around.forEach((each, i) => faint[i].setAttribute("d", polyline(path(each, 32, error))));
      drawn = error;
      const states = path(x0, steps, error);
      fine.setAttribute("d", polyline(path(x0, 96, 0)));
      chosen.setAttribute("d", polyline(states));
      nodes.setAttribute("d", states.map((each) => `M${inPlane(each)}h0`).join(""));
      for (const [marks, place] of [[[start, data], x0], [[end, code], states.at(-1)]])
        for (const mark of marks) mark.setAttribute("transform", `translate(${inPlane(place)})`);
    },
  };
}

/** A line for each route: a dot on a common axis, its value beside it. */
function makeValues() {
  const svg = make("svg:svg", { viewBox: "0 0 300 236", role: "img", "aria-label": "Log-density of the data point by each route" });
  for (let value = LOW; value <= HIGH; value += 2) {
    svg.append(make("svg:path", { class: "rule", d: `M${across(value)} 8v206` }));
    svg.append(make("svg:text", { x: across(value), y: 230, "text-anchor": "middle" }, fixed(value, 0)));
  }
  const truth = make("svg:path", { class: "cursor" });
  svg.append(truth);
  const rows = Object.entries(ROUTES).map(([key, { name, colour }], i) => {
    const y = 34 + 40 * i;
    const stem = make("svg:path", { class: "curve", style: `--colour: ${colour}` });
    const dot = make("svg:circle", { class: "dot", r: 6, cy: y, style: `--colour: ${colour}` });
    const text = make("svg:text", { class: "name", x: 24, y: y - 11 });
    svg.append(stem, dot, text);
    return (found) => {
      const value = found[key];
      const beyond = value < LOW ? " ◂ off the scale" : value > HIGH ? " ▸ off the scale" : "";
      stem.setAttribute("d", `M${across(found.exact)} ${y}H${across(value)}`);
      dot.setAttribute("cx", across(value));
      text.textContent = `${name}: ${nats(value)}${beyond}`;
    };
  });
  return {
    node: make("figure", {}, make("div", { class: "quiet" }, "Log-density of the data point, nats"), svg),
    draw(found) {
      truth.setAttribute("d", `M${across(found.exact)} 8v206`);
      rows.forEach((row) => row(found));
    },
  };
}

function render(host) {
  const { root, get, set, live } = makeWidget(host, "edu-routes", "One point, four likelihoods", { place: between(0, 1), steps: STEPS, error: ERRORS });
  const place = makeSlider("data point x_0", 81, (position) => set({ place: position / 80 }));
  const steps = makeSlider("steps", STEPS.length, (position) => set({ steps: STEPS[position] }));
  const error = makeSlider("score error", ERRORS.length, (position) => set({ error: ERRORS[position] }));
  const [plane, values] = [makePlane(), makeValues()];
  root.append(place.node, steps.node, error.node, make("div", { class: "pair" }, plane.node, values.node));
  const words = makeWords(root);

  function draw() {
    const { place: p, steps: n, error: e } = get();
    const x0 = point(p);
    const spoken = x0.map((value) => fixed(value)).join(", ");
    place.show(Math.round(80 * p), `(${spoken})`, `data point at ${spoken}`);
    steps.show(nearest(STEPS, n), String(n), `${n} steps, ${2 * n} evaluations`);
    error.show(nearest(ERRORS, e), e.toFixed(2), `score error ${e.toFixed(2)}`);
    plane.draw(x0, n, e);
    values.draw(routes(p, n, e));
    words.say(describe(p, n, e));
  }

  return live(draw, words.stop);
}

export default { render };
