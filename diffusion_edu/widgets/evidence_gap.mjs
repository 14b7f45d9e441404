// The evidence of one observation, its lower bound, and the gap, while the reader moves q.
// Python: diffusion_edu/widgets/evidence_gap.py

export const LIMITS = { mean: [-4, 4], width: [0.1, 2], x: [-1, 4], noise: [0.4, 1.5] };
const STEP = 0.05; // of every slider
const [FIRST, COUNT, SPACING] = [-6, 1201, 0.01]; // the grid of z over which the evidence is summed
const GRID = Array.from({ length: COUNT }, (_, i) => FIRST + i * SPACING);

/** log N(z; mean, std^2). */
export const logNormal = (z, mean, std) => -(((z - mean) / std) ** 2) / 2 - Math.log(std * Math.sqrt(2 * Math.PI));

/** log p(x, z) on the grid, for the decoder f(z) = z ("line") or z^2 ("square"). */
export const logJoint = (decoder, x, noise) =>
  GRID.map((z) => logNormal(z, 0, 1) + logNormal(decoder === "line" ? z : z * z, x, noise));

/** log p(x) by summation. */
export function logEvidence(decoder, x, noise) {
  const values = logJoint(decoder, x, noise);
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0) * SPACING);
}

/** Nats: log p(x) = reconstruction - klPrior + gap. */
export function terms({ decoder, x, noise, mean, width }) {
  const [m2, w2] = [mean ** 2, width ** 2];
  const error = decoder === "line" ? (x - mean) ** 2 + w2 : x ** 2 - 2 * x * (m2 + w2) + m2 ** 2 + 6 * m2 * w2 + 3 * w2 ** 2;
  const reconstruction = -error / (2 * noise ** 2) - Math.log(noise * Math.sqrt(2 * Math.PI));
  const klPrior = (m2 + w2 - 1) / 2 - Math.log(width);
  const evidence = logEvidence(decoder, x, noise);
  return { evidence, reconstruction, klPrior, elbo: reconstruction - klPrior, gap: evidence - reconstruction + klPrior };
}

/** Mean and width of the Gaussian with the highest ELBO, on the side of 0 where `mean` is. */
export function bestQ({ decoder, x, noise, mean }) {
  const v = noise ** 2;
  if (decoder === "line") return { mean: x / (1 + v), width: noise / Math.sqrt(1 + v) };
  let [m2, w2] = [mean ** 2, 1];
  for (let turn = 0; turn < 400; turn++) {
    const b = 1 + (6 * m2 - 2 * x) / v;
    w2 = 2 / (b + Math.sqrt(b ** 2 + 24 / v)); // the root of 6 w^4 / v + b w^2 = 1
    m2 = Math.max(0, x - 3 * w2 - v / 2);
  }
  return { mean: (mean < 0 ? -1 : 1) * Math.sqrt(m2), width: Math.sqrt(w2) };
}

// ---- words ------------------------------------------------------------------------------------------

/** -1.234 -> "−1.23". */
export const inWords = (value, digits = 2) => {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
};

/** What is seen now, in sentences. */
export function describe(state) {
  const now = terms(state);
  const best = terms({ ...state, ...bestQ(state) });
  const sum = `log p(x) = ${inWords(now.evidence)} nats. This q promises ${inWords(now.elbo)}: reconstruction ${inWords(now.reconstruction)}, less ${inWords(now.klPrior)} for leaving the prior. The gap is ${inWords(now.gap)} nats, and it is KL(q ‖ posterior).`;
  if (now.gap < 0.005) return `${sum}\nq is the true posterior: the bound is exact.`;
  const spare = now.gap - best.gap;
  if (spare < 0.005)
    return `${sum}\nNo Gaussian on this side does better. ${Math.abs(state.mean) > 0.3 ? "The posterior has two humps; q sits on one and gives up the other, which costs about log 2 = 0.69." : "The posterior is no Gaussian."}`;
  return `${sum}\nThe best Gaussian on this side of 0 would leave a gap of ${inWords(best.gap)}: ${inWords(spare)} nats are wasted by the choice of q.`;
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

const CURVES = [
  { key: "prior", name: "prior p(z)", colour: "#6b7280", dash: "6 3" },
  { key: "posterior", name: "posterior p(z | x)", colour: "#2f6db3", dash: "" },
  { key: "q", name: "q(z)", colour: "#d9822b", dash: "" },
];
const BARS = [
  [["reconstruction cost", "#3d9970", (now) => -now.reconstruction], ["KL(q ‖ prior)", "#8a5fb5", (now) => now.klPrior]],
  [["−log p(x)", "#6b7280", (now) => -now.evidence], ["gap, KL(q ‖ posterior)", "#c0504d", (now) => now.gap]],
];
const SCALES = [5, 10, 20, 50, 100, 200, 500]; // nats at the right end of the bars
const SHOWN = [-4, 4]; // of z
const DECODERS = [["square", "f(z) = z²"], ["line", "f(z) = z"]];

/** The smallest scale that holds so many nats. */
export const scaleFor = (nats) => SCALES.find((scale) => nats <= scale) ?? SCALES.at(-1);

/** Two bars of equal length, each of two blocks, with their names and numbers. */
function makeBars() {
  const blocks = BARS.map((pair) => pair.map(([, colour]) => make("span", { style: `--colour: ${colour}` })));
  const values = BARS.map((pair) => pair.map(() => make("b")));
  const axis = make("div", { class: "axis quiet" });
  const picture = make("div", { class: "bars", role: "img" });
  for (const [row, pair] of BARS.entries()) {
    const legend = make("div", { class: "legend" });
    for (const [i, [name, colour]] of pair.entries())
      legend.append(make("span", { style: `--colour: ${colour}` }, make("i"), name, " ", values[row][i]));
    picture.append(legend, make("div", { class: "bar" }, ...blocks[row]));
  }
  picture.append(axis);
  return {
    node: picture,
    draw(now) {
      const scale = scaleFor(-now.elbo);
      for (const [row, pair] of BARS.entries())
        for (const [i, [, , value]] of pair.entries()) {
          blocks[row][i].style.width = `${Math.min(100, (100 * Math.max(0, value(now))) / scale)}%`;
          values[row][i].textContent = inWords(value(now));
        }
      axis.replaceChildren(make("span", {}, "0"), make("span", {}, `${scale / 2}`), make("span", {}, `${scale} nats`));
      picture.setAttribute("aria-label", `Two bars of ${inWords(-now.elbo)} nats: ${BARS.map((pair) => pair.map(([name, , value]) => `${name} ${inWords(value(now))}`).join(" plus ")).join("; ")}`);
    },
  };
}

function render({ model, el }) {
  const names = ["decoder", "mean", "width", "x", "noise"];
  const root = makeRoot(el, "edu-evidence", "The evidence and its bound");
  const read = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };

  const sliders = [["mean", "mean of q"], ["width", "width of q"], ["x", "observed x"], ["noise", "decoder’s noise"]].map(([name, label]) => {
    const [low, high] = LIMITS[name];
    const slider = makeSlider(label, Math.round((high - low) / STEP) + 1, (position) => set({ [name]: Number((low + position * STEP).toFixed(2)) }));
    return { ...slider, draw: (value) => slider.show(Math.round((value - low) / STEP), inWords(value), `${label} ${inWords(value)}`) };
  });

  const group = unique();
  const choice = make("fieldset", { class: "choice" }, make("legend", {}, "decoder"));
  const radios = DECODERS.map(([key, name]) => {
    const input = make("input", { type: "radio", name: group, value: key });
    input.addEventListener("change", () => set({ decoder: key }));
    choice.append(make("label", {}, input, " ", name));
    return input;
  });
  const button = make("button", { type: "button" }, "Best q");
  button.addEventListener("click", () => set(bestQ(read())));

  const [low, high] = SHOWN;
  const chart = makeChart("Densities of z", [[0, `z = ${inWords(low, 0)}`], [0.5, "0"], [1, `${high}`]], [0, 1], []);
  const curves = CURVES.map(({ key, colour, dash }) => ({ key, ...chart.addCurve(colour, dash) }));
  const key = make("div", { class: "legend" }, ...CURVES.map(({ name, colour }) => make("span", { style: `--colour: ${colour}` }, make("i"), name)));
  const bars = makeBars();
  const handles = make("div", { class: "handles" }, ...sliders.map(({ node }) => node), make("div", { class: "choices" }, choice, button));
  const text = make("div");
  root.append(make("div", { class: "two" }, make("div", {}, chart.node, key), handles), bars.node, text);
  const words = makeWords(text);

  function draw() {
    const state = read();
    const now = terms(state);
    const joint = logJoint(state.decoder, state.x, state.noise);
    const densities = {
      prior: GRID.map((z) => Math.exp(logNormal(z, 0, 1))),
      posterior: joint.map((value) => Math.exp(value - now.evidence)),
      q: GRID.map((z) => Math.exp(logNormal(z, state.mean, state.width))),
    };
    const peak = Math.max(...densities.posterior, ...densities.q);
    const top = [0.5, 0.7, 1, 1.4, 2, 2.8, 4.2].find((each) => peak <= each); // steps, so that a small move does not rescale
    for (const curve of curves)
      curve.draw(GRID.flatMap((z, i) => (z < low - 0.001 || z > high + 0.001 || i % 4 ? [] : [[(z - low) / (high - low), densities[curve.key][i] / top]])));
    sliders.forEach((slider, i) => slider.draw(state[names[i + 1]]));
    radios.forEach((radio) => (radio.checked = radio.value === state.decoder));
    bars.draw(now);
    words.say(describe(state));
  }

  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => {
    words.stop();
    for (const name of names) model.off(`change:${name}`, draw);
  };
}

export default { render };
