// The bound of a diffusion chain as an area: its three terms, and what each step costs.
// Python: diffusion_edu/widgets/bound_explorer.py. Its numbers and those here agree to 1e-9 (tests/js).
// The data are two lumps on a line, at -1 and 1, of deviation SPREAD; the denoiser is the exact one.

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

const number = (x) => (Math.abs(x) >= 1000 ? x.toPrecision(3) : x.toFixed(2)).replace("-", "−");

/** What is seen, in sentences. */
export function describe(schedule, steps, low, high) {
  const { prior, diffusion, reconstruction, total } = terms(schedule, steps, low, high);
  const gap = total - ENTROPY;
  const sum = `${steps} ${steps === 1 ? "step" : "steps"}, ${SCHEDULES[schedule].name}: prior ${number(prior)} + diffusion ${number(diffusion)} + reconstruction ${number(reconstruction)} = ${number(total)} nats. The truth, the entropy of the data, is ${number(ENTROPY)}: the bound is ${number(gap)} too high.`;
  if (prior > 0.05) return `${sum}\nThe noisy end still holds signal, and sampling starts without it: ${number(prior)} nats of prior term. No number of steps removes them.`;
  if (gap > 0.1) return `${sum}\nThe denoiser is perfect. What is lost are the corners of the steps above the curve: each pays for its noisier end.`;
  return `${sum}\nThe steps follow the curve. Now another schedule changes the shape of the curve and hardly the area.`;
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

const [LEFT, RIGHT] = [-1, 8]; // nats that the bars show

/** Bars of the terms, each beginning where the one before ends, and a line at the truth. */
function makeBars() {
  const [width, left, row] = [256, 96, 29];
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

const nearest = (values, value) =>
  values.reduce((best, each, i) => (Math.abs(each - value) < Math.abs(values[best] - value) ? i : best), 0);

function render({ model, el }) {
  const root = makeRoot(el, "edu-bound", "The bound as an area");
  const change = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const group = unique();
  const choices = Object.entries(SCHEDULES).map(([key, { name }]) => {
    const input = make("input", { type: "radio", name: group, value: key });
    input.addEventListener("change", () => change("schedule", key));
    return { key, input, node: make("label", {}, input, name) };
  });
  const sliders = [
    ["steps", "number of steps", STEPS, (value) => String(value)],
    ["high", "end at the data", HIGHS, (value) => `λ = ${number(value)}`],
    ["low", "end at the noise", LOWS, (value) => `λ = ${number(value)}`],
  ].map(([name, label, values, words]) => ({ name, values, words, ...makeSlider(label, values.length, (i) => change(name, values[i])) }));

  const chart = makeChart("Nats a unit of time (cut off at 16)", [[0, "data"], [1, "noise"]], [0, 16], [[0, "0"], [5, "5"], [10, "10"], [15, "15"]]);
  const stairs = make("svg:path", { class: "stairs" });
  chart.plot.append(stairs);
  const { draw: drawCurve } = chart.addCurve("#2f6db3", "");
  const bars = makeBars();
  const text = make("div");
  root.append(
    make("div", { role: "radiogroup", class: "choices", "aria-label": "schedule" }, ...choices.map(({ node }) => node)),
    ...sliders.map(({ node }) => node),
    make("div", { class: "below" }, chart.node, bars.node),
    text,
  );
  const words = makeWords(text);

  function draw() {
    const [schedule, steps, low, high] = ["schedule", "steps", "low", "high"].map((name) => model.get(name));
    for (const { key, input } of choices) input.checked = key === schedule;
    for (const { name, values, words: inText, show } of sliders) {
      const value = model.get(name);
      show(nearest(values, value), inText(value), name === "steps" ? `${value} steps` : `log signal-to-noise ratio ${value}`);
    }
    drawCurve(costCurve(schedule, low, high));
    const heights = stepCosts(schedule, steps, low, high).map((cost) => Math.min(cost * steps, 17));
    const place = (u) => (u * 306).toFixed(1);
    stairs.setAttribute("d", `M0 ${chart.y(0)}` + heights.map((h, i) => `L${place(i / steps)} ${chart.y(h, 9)}H${place((i + 1) / steps)}`).join("") + `V${chart.y(0)}Z`);
    bars.draw(terms(schedule, steps, low, high));
    words.say(describe(schedule, steps, low, high));
  }

  const events = ["schedule", "steps", "low", "high"].map((name) => `change:${name}`);
  for (const event of events) model.on(event, draw);
  draw();
  return () => {
    words.stop();
    for (const event of events) model.off(event, draw);
  };
}

export default { render };
