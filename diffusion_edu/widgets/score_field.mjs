// The score field: arrows of a noisy mixture, and walkers that follow them by Langevin dynamics.
// Python: diffusion_edu/widgets/score_field.py

// ---- mathematics ------------------------------------------------------------------------------------

export const LEVELS = 61; // positions of the noise slider
const [LOWEST, HIGHEST] = [0.05, 3];
const SIZES = Array.from({ length: 49 }, (_, i) => Number((0.02 * 250 ** (i / 48)).toPrecision(2)));
const REST = 3; // annealing: steps at each level

/** Noise level at a position of the slider, evenly spaced in log sigma. */
export const levelAt = (position) => LOWEST * (HIGHEST / LOWEST) ** (position / (LEVELS - 1));

/** The nearest position of the slider to a noise level. */
export const positionOf = (sigma) => Math.round((Math.log(sigma / LOWEST) / Math.log(HIGHEST / LOWEST)) * (LEVELS - 1));

/** A seeded stream of uniform numbers in [0, 1): mulberry32. */
export function mulberry32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` pairs of standard normal numbers from a uniform stream: Box and Muller. */
export function normalPairs(random, count) {
  return Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random())); // 1 - u is never 0
    const angle = 2 * Math.PI * random();
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
}

/** log of weight times density of each lump at [x, y], after noise of level sigma was added. */
const logParts = ({ means, stds, weights }, sigma, [x, y]) => means.map(([a, b], k) => {
  const variance = stds[k] ** 2 + sigma ** 2;
  return Math.log(weights[k] / (2 * Math.PI * variance)) - ((x - a) ** 2 + (y - b) ** 2) / (2 * variance);
});

/** Density of the noisy mixture at a point. */
export const density = (lumps, sigma, point) => logParts(lumps, sigma, point).reduce((sum, each) => sum + Math.exp(each), 0);

/** Its score: each lump's pull, weighted by the chance that the point is that lump's. */
export function score(lumps, sigma, point) {
  const parts = logParts(lumps, sigma, point);
  const top = Math.max(...parts);
  const chances = parts.map((each) => Math.exp(each - top));
  const total = chances.reduce((sum, each) => sum + each, 0);
  return [0, 1].map((axis) => chances.reduce((sum, chance, k) =>
    sum + ((chance / total) * (lumps.means[k][axis] - point[axis])) / (lumps.stds[k] ** 2 + sigma ** 2), 0));
}

/** Langevin's eta: `size` times the variance of the thinnest lump at this noise level. */
export const stepOf = ({ stds }, sigma, size) => size * (Math.min(...stds) ** 2 + sigma ** 2);

/** One Langevin step of all points; z: a pair of normal numbers for each, or null for no noise. */
export function langevinStep(lumps, sigma, eta, points, z) {
  const root = Math.sqrt(eta);
  return points.map((point, i) => {
    const arrow = score(lumps, sigma, point);
    return point.map((value, axis) => {
      const next = value + (eta / 2) * arrow[axis] + (z === null ? 0 : root * z[i][axis]);
      return Math.min(Math.max(next, -1e6), 1e6); // a step that is too large flies away; keep numbers
    });
  });
}

/** Share of the points that are nearest to each centre. */
export function sharesOf(means, points) {
  const counts = means.map(() => 0);
  for (const [x, y] of points) {
    const gaps = means.map(([a, b]) => (x - a) ** 2 + (y - b) ** 2);
    counts[gaps.indexOf(Math.min(...gaps))] += 1;
  }
  return counts.map((count) => count / points.length);
}

/** One standard error of a lump's share among n independent points. */
export const errorOf = (weight, n) => Math.sqrt((weight * (1 - weight)) / n);

// ---- words ------------------------------------------------------------------------------------------

/** 0.0000404 -> "4.04 × 10⁻⁵". */
export function inWords(x, digits = 3) {
  if (x === Infinity) return "+∞";
  if (x === -Infinity) return "−∞";
  if (x === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(x)));
  if (size > -4 && size < 6) return Number(x.toPrecision(digits)).toString().replace("-", "−");
  const [mantissa, exponent] = x.toExponential(digits - 1).split("e");
  const raised = [...String(Number(exponent))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
  return `${mantissa.replace("-", "−")} × 10${raised}`;
}

const percent = (share) => `${(100 * share).toFixed(0)} %`;

/** What is seen now, in sentences. */
export function describe({ sigma, size, noise, annealed, steps, shares, weights, n }) {
  const off = shares.map((share, k) => Math.abs(share - weights[k]) / errorOf(weights[k], n));
  const worst = off.indexOf(Math.max(...off));
  const letter = "ABCDE"[worst];
  const first = `Noise level ${sigma.toFixed(2)}, ${annealed ? "annealed" : "one level"}, ${steps} ${steps === 1 ? "step" : "steps"} made.`;
  const verdict = off[worst] < 3
    ? "The shares agree with the weights within their errors."
    : `Lump ${letter} has ${percent(shares[worst])} of the walkers, its weight is ${percent(weights[worst])} ± ${(100 * errorOf(weights[worst], n)).toFixed(0)}: ${Math.round(off[worst])} standard errors off.`;
  let why = "";
  if (!noise) why = " Without noise every walker climbs to a summit and stays: no samples.";
  else if (size >= 4) why = " The step is 4 times the thinnest lump's variance or more: there Langevin flies apart.";
  else if (sigma > 0.7) why = " The lumps have melted together: walkers cross freely, but they sample a blurred density.";
  else if (off[worst] >= 3) why = " The valleys are deep: walkers cross one by one. The score is right, the weights stay wrong for long.";
  return `${first} ${verdict}${why}`;
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

const REACH = 3; // the picture shows [-3, 3] in both directions
const SIDE = 420; // pixels of the canvas, before the screen's density
const [BLUE, ORANGE] = ["#2f6db3", "#d9822b"];

/** Draws density, arrows, walkers and letters on a canvas. */
function makePicture(lumps) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const canvas = make("canvas", { width: SIDE * scale, height: SIDE * scale, role: "img" });
  const pen = canvas.getContext("2d");
  const cloud = document.createElement("canvas");
  const cells = (cloud.width = cloud.height = 84);
  const at = ([x, y]) => [((x + REACH) / (2 * REACH)) * SIDE, ((REACH - y) / (2 * REACH)) * SIDE];
  const grid = Array.from({ length: 15 }, (_, i) => -REACH + ((i + 0.5) * 2 * REACH) / 15);
  let drawnFor = null;

  function drawCloud(sigma) {
    const image = new ImageData(cells, cells);
    const values = Array.from({ length: cells * cells }, (_, i) =>
      density(lumps, sigma, [-REACH + ((i % cells) + 0.5) * (2 * REACH / cells), REACH - (Math.floor(i / cells) + 0.5) * (2 * REACH / cells)]));
    const top = Math.max(...values);
    values.forEach((value, i) => image.data.set([47, 109, 179, 130 * Math.sqrt(value / top)], 4 * i));
    cloud.getContext("2d").putImageData(image, 0, 0);
    drawnFor = sigma;
  }

  function drawArrow(from, [u, v], ink) {
    const length = Math.hypot(u, v);
    const reach = 13 * Math.tanh(Math.log1p(length) / 1.6);
    const [dx, dy] = [(u / length) * reach, (-v / length) * reach];
    const [x, y] = at(from);
    pen.beginPath();
    pen.moveTo(x - dx / 2, y - dy / 2);
    pen.lineTo(x + dx / 2, y + dy / 2);
    pen.lineTo(x + dx / 2 - 0.35 * dx + 0.2 * dy, y + dy / 2 - 0.35 * dy - 0.2 * dx);
    pen.moveTo(x + dx / 2, y + dy / 2);
    pen.lineTo(x + dx / 2 - 0.35 * dx - 0.2 * dy, y + dy / 2 - 0.35 * dy + 0.2 * dx);
    pen.strokeStyle = ink;
    pen.stroke();
  }

  function draw(sigma, walkers) {
    const ink = getComputedStyle(canvas).color;
    if (drawnFor !== sigma) drawCloud(sigma);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, SIDE, SIDE);
    pen.drawImage(cloud, 0, 0, SIDE, SIDE);
    pen.globalAlpha = 0.55;
    pen.lineWidth = 1.2;
    for (const x of grid) for (const y of grid) drawArrow([x, y], score(lumps, sigma, [x, y]), ink);
    pen.globalAlpha = 0.85;
    pen.fillStyle = ORANGE;
    for (const walker of walkers) {
      const [x, y] = at(walker);
      pen.fillRect(x - 1.7, y - 1.7, 3.4, 3.4);
    }
    pen.globalAlpha = 1;
    pen.font = "600 17px system-ui, sans-serif";
    [pen.textAlign, pen.textBaseline, pen.fillStyle] = ["center", "middle", ink];
    lumps.means.forEach((mean, k) => pen.fillText("ABCDE"[k], ...at(mean)));
  }
  return { canvas, draw };
}

/** A row for each lump: its share of the walkers as a bar, its weight as a mark with one standard error. */
function makeBars(lumps, n) {
  const rows = lumps.weights.map((weight, k) => {
    const bar = make("i", { style: `background: ${ORANGE}` });
    const error = errorOf(weight, n);
    const mark = make("b", { style: `left: ${100 * (weight - error)}%; width: ${200 * error}%; background: ${BLUE}` });
    const value = make("output", { class: "value", "aria-live": "off" });
    const row = make("div", { class: "share" }, make("strong", {}, "ABCDE"[k]), make("div", { class: "bar" }, bar, mark), value);
    const show = (share) => {
      bar.style.width = `${100 * share}%`;
      value.textContent = `${percent(share)} (${(100 * weight).toFixed(0)} ± ${(100 * error).toFixed(0)})`;
    };
    return { row, show };
  });
  const head = make("div", { class: "quiet" }, "Share of the walkers (orange), and in brackets the weight ± one standard error (blue), in %");
  return { node: make("div", {}, head, ...rows.map(({ row }) => row)), show: (shares) => shares.forEach((share, k) => rows[k].show(share)) };
}

/** A checkbox or radio button with its label. */
function makeChoice(type, name, text, onChange) {
  const input = make("input", { type, name });
  input.addEventListener("change", () => onChange(input.checked));
  return { input, node: make("label", { class: "choice" }, input, text) };
}

function render({ model, el }) {
  const lumps = Object.fromEntries(["means", "stds", "weights"].map((name) => [name, model.get(name)]));
  const start = model.get("start");
  const root = makeRoot(el, "edu-score", "Walkers on the arrows of a score");
  let [walkers, made, random, timer] = [model.get("walkers"), model.get("steps"), mulberry32(model.get("seed")), null];

  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const noise = makeSlider("noise level σ", LEVELS, (position) => set({ sigma: levelAt(position) }));
  const size = makeSlider("step size", SIZES.length, (position) => set({ size: SIZES[position] }));

  const button = (text, act) => {
    const node = make("button", { type: "button" }, text);
    node.addEventListener("click", act);
    return node;
  };
  const play = button("▶ Play", () => (timer === null ? run() : pause()));
  const once = button("One step", () => { pause(); advance(); });
  const again = button("Start again", restart);
  const shaken = makeChoice("checkbox", unique(), "noise", (on) => set({ noise: on }));
  const group = unique();
  const modes = [["one level", false], ["annealed", true]].map(([text, annealed]) =>
    makeChoice("radio", group, text, () => { set({ annealed }); if (annealed) restart(); }));

  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ Play";
    draw();
  }
  function run() {
    play.textContent = "❚❚ Pause";
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = setInterval(advance, calm ? 700 : 60);
  }
  function restart() {
    pause();
    [walkers, made, random] = [start, 0, mulberry32(model.get("seed"))];
    if (model.get("annealed")) set({ sigma: HIGHEST });
    draw();
  }
  function advance() {
    const sigma = model.get("sigma");
    const z = model.get("noise") ? normalPairs(random, walkers.length) : null;
    walkers = langevinStep(lumps, sigma, stepOf(lumps, sigma, model.get("size")), walkers, z);
    made += 1;
    const position = positionOf(sigma);
    if (model.get("annealed") && made % REST === 0) position > 0 ? set({ sigma: levelAt(position - 1) }) : pause();
    draw();
  }

  const picture = makePicture(lumps);
  const bars = makeBars(lumps, start.length);
  const side = make("div", {}, bars.node);
  root.append(noise.node, size.node,
    make("div", { class: "drive" }, play, once, again, shaken.node, make("span", { role: "radiogroup", "aria-label": "noise levels" }, ...modes.map(({ node }) => node))),
    make("div", { class: "below" }, picture.canvas, side));
  const words = makeWords(side);

  function draw() {
    const [sigma, step] = [model.get("sigma"), model.get("size")];
    const shares = sharesOf(lumps.means, walkers);
    noise.show(positionOf(sigma), sigma.toFixed(2), `noise level ${sigma.toFixed(2)}`);
    const nearest = SIZES.reduce((best, value, i) => (Math.abs(value - step) < Math.abs(SIZES[best] - step) ? i : best), 0);
    size.show(nearest, `${inWords(step, 2)} × var`, `step ${inWords(step, 2)} times the thinnest lump's variance`);
    shaken.input.checked = model.get("noise");
    modes.forEach(({ input }, i) => (input.checked = model.get("annealed") === Boolean(i)));
    picture.draw(sigma, walkers);
    picture.canvas.setAttribute("aria-label", `Arrows of the score at noise level ${sigma.toFixed(2)} and ${walkers.length} walkers after ${made} steps`);
    bars.show(shares);
    words.say(describe({ sigma, size: step, noise: model.get("noise"), annealed: model.get("annealed"), steps: made, shares, weights: lumps.weights, n: start.length }));
  }

  const events = ["sigma", "size", "noise", "annealed"].map((name) => `change:${name}`);
  for (const event of events) model.on(event, draw);
  const theme = new MutationObserver(draw); // the canvas takes its ink from the page's theme
  theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  draw();
  return () => {
    clearInterval(timer);
    words.stop();
    theme.disconnect();
    for (const event of events) model.off(event, draw);
  };
}

export default { render };
