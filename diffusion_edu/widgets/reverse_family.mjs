// Three dynamics over one marginal: forward SDE, reverse SDE and ODE of a mixture on the line, and what lies between.
// Python: diffusion_edu/widgets/reverse_family.py

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

/** Standard normal numbers from a seed (mulberry32, Box-Muller). */
export function normals(count, seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let r = Math.imul(state ^ (state >>> 15), state | 1);
    r ^= r + Math.imul(r ^ (r >>> 7), r | 61);
    return ((r ^ (r >>> 14)) >>> 0) / 4294967296;
  };
  const found = new Float64Array(count + 1);
  for (let i = 0; i < count; i += 2) {
    const [radius, angle] = [Math.sqrt(-2 * Math.log(1 - uniform())), 2 * Math.PI * uniform()];
    found[i] = radius * Math.cos(angle);
    found[i + 1] = radius * Math.sin(angle);
  }
  return found.subarray(0, count);
}

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

// ---- words ------------------------------------------------------------------------------------------

/** What is seen, in sentences. */
export function describe({ direction, noise, steps, error }, found, chance) {
  const verdict = found < 1.6 * chance
    ? `no more than chance, ${chance.toFixed(3)}`
    : `${(found / chance).toFixed(1)} times what chance would do, ${chance.toFixed(3)}`;
  if (direction === "forward")
    return `Forward SDE, ${steps} steps: data at the right are blown to the left until one round lump is left. It uses no score, so λ and the score's error do nothing. Distance of the arrivals from the exact law at t = 1: ${found.toFixed(3)}, ${verdict}.`;
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

// ---- common to all widgets (tests/widgets/test_all.py holds the copies equal) ---------------------------

const unique = () => `edu-${Math.random().toString(36).slice(2)}`;

/** An element with attributes and children; `svg:` before the tag makes it one of SVG. */
function make(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Text in which x_t stands with a subscript, as nodes. */
const typeset = (text) => text.split(/_(\w+)/).map((part, i) => (i % 2 ? make("sub", {}, part) : part));

/** The widget's root in `el`. JupyterLab's notebook would take the arrow keys: they stay inside. */
function makeRoot(el, kind, name) {
  const root = make("div", { class: `edu ${kind}`, role: "group", "aria-label": name });
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
  return root;
}

/** A labelled slider over 0 ... count - 1, its value in `shown`; show(position, value, spoken) moves it and tells nobody. */
function makeSlider(name, count, onInput, shown = make("output", { class: "value", "aria-live": "off" })) {
  const id = unique();
  const input = make("input", { type: "range", id, min: 0, max: count - 1, step: 1 });
  input.addEventListener("input", () => onInput(Number(input.value)));
  const show = (position, value, spoken) => {
    input.value = position;
    input.setAttribute("aria-valuetext", spoken);
    shown.value = value;
  };
  return { node: make("div", { class: "control" }, make("label", { for: id }, ...typeset(name)), input, shown), show };
}

/** Visible text, and its copy for screen readers, which waits until the reader's hand rests. */
function makeWords(root) {
  const seen = make("p", { class: "words" });
  const heard = make("div", { class: "heard", "aria-live": "polite" });
  let timer;
  root.append(seen, heard);
  return {
    say(text) {
      seen.replaceChildren(...typeset(text));
      clearTimeout(timer);
      timer = setTimeout(() => (heard.textContent = text), 700);
    },
    stop: () => clearTimeout(timer),
  };
}

/** A small chart over [0, 1]; y runs from low to high, ticks are [value, text]. */
function makeChart(title, xTicks, [low, high], yTicks) {
  const [width, height, left, top] = [306, 132, 30, 6];
  const x = (value) => (value * width).toFixed(1);
  const y = (value, beyond = 0) => (((high - Math.min(Math.max(value, low - beyond), high + beyond)) / (high - low)) * height).toFixed(1);
  const chart = make("svg:svg", { viewBox: `0 0 ${width + left + 6} ${height + top + 22}`, role: "img", "aria-label": title });
  const plot = make("svg:svg", { x: left, y: top, width, height }); // clips what leaves it
  const front = make("svg:g", { transform: `translate(${left} ${top})` });
  const text = (x, y, anchor, words) => chart.append(make("svg:text", { x, y, "text-anchor": anchor }, words));
  for (const [value, words] of yTicks) {
    front.append(make("svg:path", { class: "rule", d: `M0 ${y(value)}h${width}` }));
    text(left - 5, top + 4 + Number(y(value)), "end", words);
  }
  for (const [value, words] of xTicks) text(left + value * width, height + top + 17, ["start", "middle", "end"][2 * value], words);
  const cursor = make("svg:path", { class: "cursor" });
  front.append(cursor);
  chart.append(front, plot);
  return {
    node: make("figure", {}, make("div", { class: "quiet" }, title), chart),
    plot,
    y,
    addCurve(colour, dash) {
      const curve = make("svg:path", { class: "curve", style: `--colour: ${colour}`, "stroke-dasharray": dash });
      plot.append(curve);
      return { curve, draw: (points) => curve.setAttribute("d", "M" + points.map(([a, b]) => `${x(a)} ${y(b, 9)}`).join("L")) };
    },
    addDot() {
      const dot = make("svg:circle", { class: "dot", r: 4.5 });
      chart.append(dot);
      return (a, b, colour) => {
        dot.setAttribute("transform", `translate(${left + Number(x(a))} ${top + Number(y(b))})`);
        dot.style.setProperty("--colour", colour);
      };
    },
    moveCursor: (value) => cursor.setAttribute("d", `M${x(value)} 0v${height}`),
  };
}

/** Bytes of a base64 text. */
const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

// ---- end of what is common --------------------------------------------------------------------------

const [COUNT, SHOWN, BINS] = [400, 16, 34];
const [WIDTH, HEIGHT, SIDE, GAP] = [470, 300, 76, 8]; // of the middle picture, and of the histograms beside it
const CHOICES = [
  ["forward SDE", "forward", null],
  ["reverse SDE", "reverse", 1],
  ["ODE", "reverse", 0],
];
const toY = (x) => ((EDGE - x) / (2 * EDGE)) * HEIGHT;

/** The densities at all times as a picture: the alpha channel of one colour, so that it suits any theme. */
function densityMap(mixture) {
  const canvas = make("canvas", { width: 120, height: 100 });
  const pen = canvas.getContext("2d");
  for (let column = 0; column < 120; column++) {
    const parts = components(mixture, 1 - column / 119);
    for (let row = 0; row < 100; row++) {
      pen.fillStyle = `rgb(47 109 179 / ${Math.min(0.85, 0.75 * Math.sqrt(density(parts, EDGE - ((row + 0.5) / 100) * 2 * EDGE))).toFixed(3)})`;
      pen.fillRect(column, row, 1, 1);
    }
  }
  return canvas.toDataURL();
}

/** A histogram that grows to one side of the picture, with the exact density as a line. */
function makeHistogram(left, sign, parts, title) {
  const frame = make("svg:g", { transform: `translate(${left} 0)` });
  const peak = 1.25 * Math.max(...Array.from({ length: 200 }, (_, j) => density(parts, -EDGE + (j * 2 * EDGE) / 199)));
  const reach = (value) => sign * SIDE * Math.min(1, value / peak);
  const bars = make("svg:path", { class: "bars" });
  const line = Array.from({ length: 171 }, (_, j) => -EDGE + (j * 2 * EDGE) / 170).map((x) => `${reach(density(parts, x)).toFixed(1)} ${toY(x).toFixed(1)}`);
  frame.append(bars, make("svg:path", { class: "curve", style: "--colour: #2f6db3", d: `M${line.join("L")}` }));
  frame.append(make("svg:text", { x: (sign * SIDE) / 2, y: HEIGHT + 22, "text-anchor": "middle" }, title));
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

function render({ model, el }) {
  const mixture = { means: model.get("means"), stds: model.get("stds"), weights: model.get("weights") };
  const fine = normals(FINEST * COUNT, 1);
  const starts = { reverse: normals(COUNT, 2), forward: dataFrom(mixture, COUNT, 3) };
  const laws = { reverse: components(mixture, 0), forward: components(mixture, 1) };
  const root = makeRoot(el, "edu-family", "One marginal, many processes");
  const send = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };

  const group = unique();
  const radios = CHOICES.map(([name, direction, noise]) => {
    const input = make("input", { type: "radio", name: group });
    input.addEventListener("change", () => send(noise === null ? { direction } : { direction, noise }));
    return { node: make("label", {}, input, name), input, direction, noise };
  });
  const choices = make("fieldset", { class: "choices" }, make("legend", { class: "heard" }, "dynamics"), ...radios.map(({ node }) => node));

  const chart = make("svg:svg", { viewBox: `0 0 ${WIDTH + 2 * (SIDE + GAP)} ${HEIGHT + 32}`, role: "img", "aria-label": "Paths in space and time, from noise at the left to data at the right" });
  const left = makeHistogram(SIDE, -1, laws.forward, "t = 1");
  const right = makeHistogram(SIDE + 2 * GAP + WIDTH, 1, laws.reverse, "t = 0");
  const plot = make("svg:svg", { x: SIDE + GAP, y: 0, width: WIDTH, height: HEIGHT }); // clips what leaves it
  plot.append(make("svg:image", { href: densityMap(mixture), width: WIDTH, height: HEIGHT, preserveAspectRatio: "none" }));
  const paths = Array.from({ length: SHOWN }, () => make("svg:path", { class: "path" }));
  plot.append(...paths);
  chart.append(left.frame, right.frame, plot, make("svg:text", { x: SIDE + GAP + WIDTH / 2, y: HEIGHT + 22, "text-anchor": "middle" }, "noise ← time → data"));
  const sliders = {
    noise: makeSlider("noise λ", 41, (position) => send({ direction: "reverse", noise: position / 20 })),
    steps: makeSlider("steps", STEPS.length, (position) => send({ steps: STEPS[position] })),
    error: makeSlider("score error", 21, (position) => send({ error: (position - 10) / 20 })),
  };
  root.append(choices, make("figure", {}, chart), ...Object.values(sliders).map(({ node }) => node));
  const words = makeWords(root);

  function draw() {
    const settings = Object.fromEntries(["direction", "noise", "steps", "error"].map((name) => [name, model.get(name)]));
    const { direction, noise, steps, error } = settings;
    const { ts, xs } = run(mixture, settings, fine, starts[direction]);
    const end = xs[xs.length - 1];
    paths.forEach((path, i) => path.setAttribute("d", "M" + ts.map((t, k) => `${((1 - t) * WIDTH).toFixed(1)} ${toY(xs[k][i]).toFixed(1)}`).join("L")));
    left.draw(direction === "reverse" ? xs[0] : end);
    right.draw(direction === "reverse" ? end : xs[0]);
    for (const radio of radios) radio.input.checked = radio.direction === direction && (radio.noise === null || radio.noise === noise);
    const percent = `${error > 0 ? "+" : error < 0 ? "−" : ""}${Math.abs(100 * error).toFixed(0)} %`;
    sliders.noise.show(Math.round(20 * noise), noise.toFixed(2), `lambda ${noise.toFixed(2)}${noise === 0 ? ", the ODE" : noise === 1 ? ", the reverse SDE" : ""}`);
    sliders.steps.show(STEPS.indexOf(steps), String(steps), `${steps} steps`);
    sliders.error.show(Math.round(20 * error) + 10, percent, `score ${error === 0 ? "exact" : `${Math.abs(100 * error).toFixed(0)} percent too ${error > 0 ? "strong" : "weak"}`}`);
    words.say(describe(settings, distance(end, laws[direction]), expectedDistance(laws[direction], COUNT)));
  }

  // two settings may change together: one drawing a frame is enough
  let waiting = null;
  const later = () => (waiting ??= requestAnimationFrame(() => { waiting = null; draw(); }));
  const names = ["direction", "noise", "steps", "error"];
  for (const name of names) model.on(`change:${name}`, later);
  draw();
  return () => {
    cancelAnimationFrame(waiting);
    words.stop();
    for (const name of names) model.off(`change:${name}`, later);
  };
}

export default { render };
