// One path of the probability-flow ODE on a line: a solver's steps beside the exact curve.
// Python: diffusion_edu/widgets/solver_steps.py

import { fixed, inWords, make, makeChart, makeCloud, makeLegend, makeRadios, makeSlider, makeWidget, makeWords, whole } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

const [MEANS, STD, WEIGHTS] = [[-1.3, 1.0], 0.22, [0.35, 0.65]];
const [BETA_MIN, BETA_MAX, T_MIN] = [0.1, 20, 1e-3];
export const SOLVERS = ["Euler", "Heun", "RK4"];
export const ORDERS = { Euler: 1, Heun: 2, RK4: 4 }; // and, up to order 4, the evaluations of a step
export const STEPS = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];
export const STARTS = 40;

/** alpha, sigma, f and g^2 of LinearBeta at t. */
export function coefficients(t) {
  const logAlpha = (-t * (2 * BETA_MIN + t * (BETA_MAX - BETA_MIN))) / 4;
  const beta = BETA_MIN + t * (BETA_MAX - BETA_MIN);
  return { alpha: Math.exp(logAlpha), sigma: Math.sqrt(-Math.expm1(2 * logAlpha)), f: -beta / 2, g2: beta };
}

/** steps + 1 falling times from 1 to T_MIN, even in t or in the log signal-to-noise ratio. */
export function times(steps, grid) {
  const evenly = (first, last) => Array.from({ length: steps + 1 }, (_, i) => first + ((last - first) * i) / steps);
  if (grid === "uniform") return evenly(1, T_MIN);
  const [first, last] = [1, T_MIN].map((t) => 2 * Math.log(coefficients(t).alpha / coefficients(t).sigma));
  const rise = BETA_MAX - BETA_MIN;
  return evenly(first, last).map((logSnr, i) => {
    if (i === 0 || i === steps) return i ? T_MIN : 1;
    const logAlpha = -Math.log1p(Math.exp(-logSnr)) / 2;
    return (-BETA_MIN + Math.sqrt(BETA_MIN ** 2 - 4 * rise * logAlpha)) / rise;
  });
}

const known = new Map(); // all paths ask at the same times
/** The lumps at time t: [weight, mean, deviation] each. */
export function lumps(t) {
  if (known.size > 4000) known.clear();
  if (!known.has(t)) {
    const { alpha, sigma } = coefficients(t);
    known.set(t, MEANS.map((mean, k) => [WEIGHTS[k], alpha * mean, Math.hypot(alpha * STD, sigma)]));
  }
  return known.get(t);
}

/** Density at x. */
export const density = (parts, x) => parts.reduce((sum, [w, m, s]) => sum + (w * Math.exp(-(((x - m) / s) ** 2) / 2)) / (s * Math.sqrt(2 * Math.PI)), 0);

/** The velocity f x - g^2 / 2 score of the flow at x. */
export function velocity(x, t) {
  const { f, g2 } = coefficients(t);
  const [[w, m, s], [u, n, r]] = lumps(t);
  const odds = Math.exp(Math.min(700, (((x - m) / s) ** 2 - ((x - n) / r) ** 2) / 2)) * ((u * s) / (w * r)); // of the second lump
  return f * x - (g2 / 2) * ((m - x) / s ** 2 + (odds * (n - x)) / r ** 2) / (1 + odds);
}

/** Distribution function of the standard normal law, by its power series (Marsaglia 2004). */
export function normalShare(z) {
  if (Math.abs(z) > 7) return z > 0 ? 1 : 0;
  let [sum, term] = [z, z];
  for (let k = 3; Math.abs(term) > 1e-17 * Math.abs(sum); k += 2) sum += term *= (z * z) / k;
  return 0.5 + sum * Math.exp(-(z * z) / 2) / Math.sqrt(2 * Math.PI);
}

/** The share of the crowd below x at time t. */
export const rankOf = (x, t) => lumps(t).reduce((sum, [w, m, s]) => sum + w * normalShare((x - m) / s), 0);

/** Where the path of this rank is at time t: on a line the flow keeps ranks. By bisection. */
export function exactAt(rank, t) {
  let [low, high] = [-12, 12];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (rankOf(middle, t) < rank) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** One step from t to s: its end, and its evaluations [time, place, velocity]. */
export function step(solver, x, t, s) {
  const h = s - t;
  const asked = [];
  const ask = (place, time) => {
    asked.push([time, place, velocity(place, time)]);
    return asked[asked.length - 1][2];
  };
  const k1 = ask(x, t);
  if (solver === "Euler") return { end: x + h * k1, asked };
  if (solver === "Heun") return { end: x + (h * (k1 + ask(x + h * k1, s))) / 2, asked };
  const middle = (t + s) / 2;
  const k2 = ask(x + (h / 2) * k1, middle);
  const k3 = ask(x + (h / 2) * k2, middle);
  return { end: x + (h * (k1 + 2 * k2 + 2 * k3 + ask(x + h * k3, s))) / 6, asked };
}

/** The states of a walk from x along times ts, and the evaluations of each step. */
export function walk(solver, x, ts) {
  const [states, slopes] = [[x], []];
  for (let i = 0; i + 1 < ts.length; i++) {
    const { end, asked } = step(solver, states[i], ts[i], ts[i + 1]);
    states.push(end);
    slopes.push(asked);
  }
  return { states, slopes };
}

export const rankAt = (start) => (start + 0.5) / STARTS;

/** How far the end of a path is from the exact one. */
export const errorOf = (solver, steps, grid, start) =>
  Math.abs(walk(solver, exactAt(rankAt(start), 1), times(steps, grid)).states.at(-1) - exactAt(rankAt(start), T_MIN));

/** Root mean square of that over all starts, for each number in STEPS. */
export function crowdErrors(solver, grid) {
  const starts = Array.from({ length: STARTS }, (_, k) => [exactAt(rankAt(k), 1), exactAt(rankAt(k), T_MIN)]);
  return STEPS.map((steps) => {
    const ts = times(steps, grid);
    return Math.sqrt(starts.reduce((sum, [x, end]) => sum + (walk(solver, x, ts).states.at(-1) - end) ** 2, 0) / STARTS);
  });
}

/** The order p of errors ~ 1 / steps^p between 32 and 128 steps. */
export const fittedOrder = (errors) => Math.log2(errors[STEPS.indexOf(32)] / errors[STEPS.indexOf(128)]) / 2;

// ---- words ------------------------------------------------------------------------------------------

const GRIDS = { uniform: "even in t", log_snr: "even in log-SNR" };

/** In which lump of the data x is. */
export function lumpOf(x) {
  const k = MEANS.findIndex((mean) => Math.abs(x - mean) < 3 * STD);
  if (k < 0) return MEANS[0] < x && x < MEANS[1] ? "between the lumps" : "outside both lumps";
  return ["in the left lump", "in the right lump"][k];
}

/** What is seen, in sentences; found: { end, exact, twice, order, local, t, s }. */
export function describe({ solver, steps, grid, start, look }, { end, exact, twice, order, local, t, s }) {
  const error = Math.abs(end - exact);
  const evaluations = steps * ORDERS[solver];
  const lost = lumpOf(end) === lumpOf(exact) ? "" : `, ${lumpOf(end)}`;
  const factor = error / twice;
  const promise = `order ${ORDERS[solver]} promises a factor ${2 ** ORDERS[solver]} once steps are short`;
  const change = factor > 1 ? `${inWords(factor, 2)} times less; ${promise}` : `no less: one error can be small by luck, when it changes sign; ${promise}`;
  return `${solver}, ${steps} steps ${GRIDS[grid]}, ${evaluations} evaluations; ${fixed(100 * rankAt(start), 1).replace(".0", "")} % of the crowd lie below this path. It should end at ${fixed(exact)}, ${lumpOf(exact)}, and ends at ${fixed(end)}${lost}: off by ${inWords(error, 2)}. With twice as many steps it is off by ${inWords(twice, 2)}, ${change}. Over the whole crowd the error falls with the order ${order.toFixed(1)}, fitted from 32 to 128 steps.\nEnlarged: step ${look}, from t = ${t.toFixed(3)} to ${s.toFixed(3)}. From its own start this step alone errs by ${inWords(local, 2)}.`;
}

// ---- the pictures -----------------------------------------------------------------------------------

const [EDGE, HEIGHT] = [2.6, 280];
const COLOURS = { Euler: "#d9822b", Heun: "#8a5fb5", RK4: "#3d9970" };
const toY = (x) => ((EDGE - x) / (2 * EDGE)) * HEIGHT;
const line = (points) => "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");

/** The whole path, so wide: densities, the exact curve, the polygon, a tangent for each evaluation, a frame for the enlarged step. */
function makePath(width) {
  const toX = (t) => (1 - t) * width;
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${HEIGHT + 30}`, role: "img", "aria-label": "The path from noise at the left to data at the right: exact, dashed, and as the solver's polygon" });
  const plot = make("svg:svg", { width, height: HEIGHT }); // clips what leaves it
  const parts = Array.from({ length: 160 }, (_, i) => lumps(1 - (1 - T_MIN) * (i / 159)));
  const cloud = makeCloud(160, 110, (i, j) => Math.min(0.8, 0.62 * Math.sqrt(density(parts[i], EDGE - ((j + 0.5) / 110) * 2 * EDGE))));
  plot.append(make("svg:image", { href: cloud.toDataURL(), width, height: HEIGHT, preserveAspectRatio: "none" }));
  const [frame, tangents, exact, polygon, nodes] = ["frame", "tangents", "exact", "curve", "nodes"].map((kind) => make("svg:path", { class: kind }));
  plot.append(frame, tangents, exact, polygon, nodes);
  svg.append(plot);
  for (const [t, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) svg.append(make("svg:text", { x: toX(t), y: HEIGHT + 21, "text-anchor": anchor }, ["t = 0, data", "t = 0.5", "t = 1, noise"][2 * t]));
  return {
    svg,
    draw(solver, rank, ts, { states, slopes }, look) {
      svg.style.setProperty("--colour", COLOURS[solver]);
      exact.setAttribute("d", line(Array.from({ length: 161 }, (_, i) => 1 - ((1 - T_MIN) * i) / 160).map((t) => [toX(t), toY(exactAt(rank, t))])));
      polygon.setAttribute("d", line(states.map((x, i) => [toX(ts[i]), toY(x)])));
      nodes.setAttribute("d", states.map((x, i) => `${line([[toX(ts[i]), toY(x)]])}h0`).join(""));
      tangents.setAttribute("d", slopes.map((asked, i) => asked.map(([t, x, v]) => {
        const half = Math.max(0.008, (ts[i] - ts[i + 1]) / 3);
        return line([[toX(t + half), toY(x + half * v)], [toX(t - half), toY(x - half * v)]]);
      }).join("")).join(""));
      const [left, right] = [toX(ts[look - 1]), toX(ts[look])];
      frame.setAttribute("d", `M${(left - 3).toFixed(1)} 1H${(right + 3).toFixed(1)}V${HEIGHT - 1}H${(left - 3).toFixed(1)}z`);
    },
  };
}

/** One step, enlarged: the exact curve through its start, each tangent k_1, k_2, ..., and where the step ends. */
function makeStep() {
  const [width, height] = [342, 190];
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "One step, enlarged: its tangents, its end, and the exact curve through its start" });
  const [exact, way, curve, tangents, nodes] = ["exact", "way", "curve", "tangents", "nodes"].map((kind) => make("svg:path", { class: kind }));
  const names = [1, 2, 3, 4].map((k) => make("svg:text", { "text-anchor": "middle" }, "k", make("svg:tspan", { dy: 4, "font-size": "75%" }, String(k))));
  svg.append(exact, way, curve, tangents, nodes, ...names);
  return {
    node: make("figure", {}, make("div", { class: "quiet" }, "one step, enlarged; dashed: exact from there"), svg),
    draw(solver, [t, s], x, end, asked) {
      svg.style.setProperty("--colour", COLOURS[solver]);
      const rank = rankOf(x, t);
      const fine = Array.from({ length: 41 }, (_, i) => t + ((s - t) * i) / 40).map((u) => [u, rank > 1e-9 && rank < 1 - 1e-9 ? exactAt(rank, u) : x]);
      const reach = (t - s) * 0.16;
      const half = asked.map(([u, place, v]) => [[u + reach, place + reach * v], [u - reach, place - reach * v]]);
      const places = [x, end, ...fine.map(([, place]) => place), ...half.flat().map(([, place]) => place)];
      const [low, high] = [Math.min(...places), Math.max(...places)];
      const inX = (u) => 45 + ((t - u) / (t - s)) * (width - 90);
      const inY = (place) => 24 + ((high - place) / (high - low || 1)) * (height - 44);
      const put = (points) => line(points.map(([u, place]) => [inX(u), inY(place)]));
      exact.setAttribute("d", put(fine));
      curve.setAttribute("d", put([[t, x], [s, end]]));
      way.setAttribute("d", asked.slice(1).map(([u, place]) => put([[t, x], [u, place]])).join(""));
      tangents.setAttribute("d", half.map(put).join(""));
      nodes.setAttribute("d", [[t, x], [s, end], ...asked.slice(1)].map(([u, place]) => `${put([[u, place]])}h0`).join(""));
      names.forEach((name, i) => {
        name.toggleAttribute("hidden", i >= asked.length);
        if (i < asked.length) name.setAttribute("transform", `translate(${inX(asked[i][0]) + (i === 2 ? 14 : i === 1 && asked.length > 2 ? -14 : 0)} ${inY(asked[i][1]) - 9})`);
      });
      return Math.abs(end - fine.at(-1)[1]);
    },
  };
}

/** Where a number of steps stands on the axis. */
const across = (steps) => Math.log2(steps / 2) / 6;

function render(host) {
  const { root, get, set, isNarrow, live } = makeWidget(host, "edu-steps", "Steps of a solver beside the exact path", {
    solver: SOLVERS, steps: STEPS, grid: Object.keys(GRIDS), start: whole(0, STARTS - 1), look: whole(1, STEPS.at(-1)),
  });
  const solvers = makeRadios("solver", SOLVERS.map((name) => [name, name]), (solver) => set({ solver }));
  const grids = makeRadios("grid of times", Object.entries(GRIDS), (grid) => set({ grid }));
  const sliders = {
    steps: makeSlider("steps", STEPS.length, (position) => set({ steps: STEPS[position] })),
    start: makeSlider("start", STARTS, (start) => set({ start })),
    look: makeSlider("enlarged step", STEPS.at(-1), (position) => set({ look: position + 1 })),
  };
  const lookInput = sliders.look.node.querySelector("input");
  const figure = make("figure");
  let [path, width] = [null, 0]; // made anew for a phone
  const zoom = makeStep();
  const chart = makeChart("end's error: rms of 40 paths; dots: this one", [2, 4, 8, 16, 32, 64, 128].map((n) => [across(n), String(n)]), [-8, 0.5], [[-8, "10⁻⁸"], [-6, "10⁻⁶"], [-4, "10⁻⁴"], [-2, "10⁻²"], [0, "1"]]);
  const curves = SOLVERS.map((name) => chart.addCurve(COLOURS[name]));
  const own = make("svg:path", { class: "nodes" });
  chart.plot.append(own);
  const mark = chart.addDot();
  root.append(solvers.node, grids.node, ...Object.values(sliders).map(({ node }) => node), figure,
    make("div", { class: "pair" }, zoom.node, make("div", {}, chart.node, makeLegend(SOLVERS.map((name) => ({ name, colour: COLOURS[name] }))))));
  const words = makeWords(root);
  const table = {}; // by grid
  const crowd = (grid) => (table[grid] ??= SOLVERS.map((name) => crowdErrors(name, grid)));
  const up = (error) => Math.min(0.5, Math.max(-8, Math.log10(error)));

  function draw() {
    const { solver, steps, grid, start, look: wanted } = get();
    const look = Math.min(wanted, steps);
    const ts = times(steps, grid);
    const rank = rankAt(start);
    const found = walk(solver, exactAt(rank, 1), ts);
    if (width !== (width = isNarrow() ? 340 : 640)) {
      path = makePath(width);
      figure.replaceChildren(path.svg);
    }
    path.draw(solver, rank, ts, found, look);
    const local = zoom.draw(solver, ts.slice(look - 1, look + 1), found.states[look - 1], found.states[look], found.slopes[look - 1]);
    const errors = crowd(grid);
    curves.forEach(({ curve, draw }, i) => {
      draw(STEPS.map((n, j) => [across(n), Math.log10(errors[i][j])]));
      curve.classList.toggle("faint", SOLVERS[i] !== solver);
    });
    own.setAttribute("d", STEPS.map((n) => `M${chart.x(across(n))} ${chart.y(up(errorOf(solver, n, grid, start)))}h0`).join(""));
    own.style.setProperty("--colour", COLOURS[solver]);
    const [end, exact] = [found.states.at(-1), exactAt(rank, T_MIN)];
    mark(across(steps), up(Math.abs(end - exact)), COLOURS[solver]);
    chart.moveCursor(across(steps));
    solvers.show(solver);
    grids.show(grid);
    sliders.steps.show(STEPS.indexOf(steps), String(steps), `${steps} steps`);
    sliders.start.show(start, `${fixed(100 * rank, 1)} %`, `${fixed(100 * rank, 1)} percent of the crowd below`);
    lookInput.max = steps - 1;
    sliders.look.show(look - 1, `${look} of ${steps}`, `step ${look} of ${steps}`);
    const order = fittedOrder(errors[SOLVERS.indexOf(solver)]);
    words.say(describe({ solver, steps, grid, start, look }, { end, exact, twice: errorOf(solver, 2 * steps, grid, start), order, local, t: ts[look - 1], s: ts[look] }));
  }

  return live(draw, words.stop);
}

export default { render };
