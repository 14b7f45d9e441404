// A digit with a known defect, noised part of the way and guided back; its pictures come from a run of the network.
// Python: diffusion_edu/widgets/partial_noising.py. Its numbers and those here agree to 1e-12 (tests/js).

// ---- mathematics ------------------------------------------------------------------------------------

const LEVELS = 16;
const VISIBLE = 0.2; // a pixel is defective where it differs by more from the healthy one

/** Grey values in [-1, 1] of two pixels a byte, high nibble first. */
export function unpack(bytes) {
  const value = (level) => (level * 2) / (LEVELS - 1) - 1;
  return Float64Array.from({ length: 2 * bytes.length }, (_, i) => value(i % 2 ? bytes[i >> 1] & 15 : bytes[i >> 1] >> 4));
}

/** Chance that a positive has the higher score, ties counted half. */
export function auc(scores, positive) {
  let [sum, pairs] = [0, 0];
  for (let i = 0; i < scores.length; i++) {
    if (!positive[i]) continue;
    for (let j = 0; j < scores.length; j++) {
      if (positive[j]) continue;
      sum += scores[i] > scores[j] ? 1 : scores[i] === scores[j] ? 0.5 : 0;
      pairs += 1;
    }
  }
  return sum / pairs;
}

/** The difference map, what is defective, the map's AUC, and the mean change in the defect and outside it. */
export function measure(healthy, defective, returned) {
  const wrong = Array.from(defective, (value, i) => Math.abs(value - healthy[i]) > VISIBLE);
  const change = Array.from(defective, (value, i) => Math.abs(value - returned[i]));
  const mean = (kind) => {
    const some = change.filter((_, i) => wrong[i] === kind);
    return some.reduce((total, value) => total + value, 0) / some.length;
  };
  return { change, wrong, auc: auc(change, wrong), inside: mean(true), outside: mean(false) };
}

// ---- words ------------------------------------------------------------------------------------------

export const METHODS = [
  { name: "encoded", label: "encoded (nothing drawn)", colour: "#2f6db3" },
  { name: "noised", label: "noised (fresh noise)", colour: "#d9822b" },
];

/** What is seen, in sentences. */
export function describe(name, method, t, { auc, inside, outside }) {
  const went = inside < 0.15 ? "The defect comes back" : inside < 0.5 ? "The defect is partly gone" : "The defect is gone";
  const rest = outside < 0.03 ? "and the rest is left alone" : outside < 0.1 ? "and the rest changes a little" : "and the rest of the digit changes too";
  const map = auc > 0.9 ? "a good map" : auc > 0.7 ? "a fair map" : auc > 0.55 ? "a poor map" : "no better than guessing";
  return `${name}, ${METHODS[method].name} up to L = ${t.toFixed(2)}. ${went}, ${rest}: a pixel of the defect changes by ${inside.toFixed(2)} on average, any other pixel by ${outside.toFixed(3)} (black is −1, white 1). The AUC of the difference is ${auc.toFixed(2)}: ${map}.`;
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

const PANELS = ["digit with defect", "noised to L", "brought back", "difference", "the defect"];

/** A row of radio buttons; show(index) checks one and tells nobody. */
function makeChoice(legend, texts, onChoice) {
  const name = unique();
  const inputs = texts.map((_, index) => {
    const input = make("input", { type: "radio", name });
    input.addEventListener("change", () => onChoice(index));
    return input;
  });
  const labels = texts.map((text, index) => make("label", {}, inputs[index], ` ${text}`));
  return { node: make("fieldset", { class: "choice" }, make("legend", {}, legend), ...labels), show: (index) => (inputs[index].checked = true) };
}

/** A canvas and a function that paints values between low and high on it, black to white. */
function makePanel(title, [height, width]) {
  const canvas = make("canvas", { width, height, role: "img", "aria-label": title });
  const pen = canvas.getContext("2d");
  const paint = (values, low, high) => {
    const image = pen.createImageData(width, height);
    values.forEach((value, i) => {
      const level = Math.round(((value - low) / (high - low)) * 255);
      image.data.set([level, level, level, 255], 4 * i);
    });
    pen.putImageData(image, 0, 0);
  };
  return { node: make("figure", {}, canvas, make("div", { class: "quiet name" }, title)), paint };
}

function render({ model, el }) {
  const [times, names, shape] = ["times", "names", "shape"].map((name) => model.get(name));
  const [size, all] = [shape[0] * shape[1], unpack(bytesOf(model.get("pixels")))];
  const [digits, count] = [names.length, times.length];
  const image = (index) => all.subarray(index * size, (index + 1) * size);
  const healthy = (digit) => image(digit);
  const defective = (digit) => image(digits + digit);
  const film = (part, digit, method, place) => image(2 * digits + ((part * digits + digit) * METHODS.length + method) * count + place);
  const found = (digit, method, place) => measure(healthy(digit), defective(digit), film(1, digit, method, place));

  const root = makeRoot(el, "edu-partial", "Part of the way and back");
  const set = (name) => (value) => {
    model.set(name, value);
    model.save_changes();
  };
  const slider = makeSlider("how far to noise", count, set("place"));
  const digit = makeChoice("Digit", names, set("digit"));
  const method = makeChoice("Noising", METHODS.map(({ label }) => label), set("method"));
  const panels = PANELS.map((title) => makePanel(title, shape));
  const at = (t) => (t - times[0]) / (times.at(-1) - times[0]);
  const ends = [[0, `L = ${times[0].toFixed(2)}`], [1, `L = ${times.at(-1).toFixed(2)}`]];
  const chart = makeChart("AUC of this digit's difference map (0.5: guessing)", ends, [0, 1], [[0, "0"], [0.5, "0.5"], [1, "1"]]);
  const curves = METHODS.map(({ colour }, index) => chart.addCurve(colour, index ? "" : "6 3"));
  const dot = chart.addDot();
  const legend = make("div", { class: "legend quiet" }, ...METHODS.map(({ label, colour }, index) => make("span", {}, make("i", { style: `--colour: ${colour}`, class: index ? "" : "dashed" }), label)));
  const text = make("div");
  root.append(slider.node, digit.node, method.node, make("div", { class: "panels" }, ...panels.map(({ node }) => node)),
    make("div", { class: "below" }, make("div", {}, chart.node, legend), text));
  const words = makeWords(text);
  const cache = new Map();

  function draw() {
    const [d, m, p] = ["digit", "method", "place"].map((name) => model.get(name));
    if (!cache.has(d)) cache.set(d, METHODS.map((_, index) => times.map((__, place) => found(d, index, place).auc)));
    const now = found(d, m, p);
    slider.show(p, `L = ${times[p].toFixed(2)}`, `L ${times[p].toFixed(2)}, AUC ${now.auc.toFixed(2)}`);
    digit.show(d);
    method.show(m);
    const truth = Array.from(defective(d), (value, i) => Math.abs(value - healthy(d)[i]));
    [defective(d), film(0, d, m, p), film(1, d, m, p)].forEach((values, i) => panels[i].paint(values, -1, 1));
    [now.change, truth].forEach((values, i) => panels[3 + i].paint(values, 0, 2));
    curves.forEach(({ draw: line }, index) => line(cache.get(d)[index].map((value, place) => [at(times[place]), value])));
    chart.moveCursor(at(times[p]));
    dot(at(times[p]), now.auc, METHODS[m].colour);
    words.say(describe(names[d], m, times[p], now));
  }

  const watched = ["place", "digit", "method"].map((name) => `change:${name}`);
  watched.forEach((event) => model.on(event, draw));
  draw();
  return () => {
    words.stop();
    watched.forEach((event) => model.off(event, draw));
  };
}

export default { render };
