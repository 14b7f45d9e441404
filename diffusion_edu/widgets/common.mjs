// What all widgets share: their elements, their controls, their words. Modules write
// `import { make, makeWidget } from "./common.mjs";` at their head; Python and the site join the two (base.py).

// ---- elements -----------------------------------------------------------------------------------------

/** A name that no other element of the page has. */
export const unique = () => `edu-${Math.random().toString(36).slice(2)}`;

/** An element with attributes and children; `svg:` before the tag makes it one of SVG. */
export function make(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Text in which x_t stands with a subscript, as nodes. */
export const typeset = (text) => text.split(/_(\w+)/).map((part, i) => (i % 2 ? make("sub", {}, part) : part));

const PHONE = 480; // pixels, as in widgets.css

/** What a number from a link may be. */
export const between = (low, high) => (value) => low <= value && value <= high;

/** The same for a whole number. */
export const whole = (low, high) => (value) => Number.isInteger(value) && between(low, high)(value);

/** A list from a link; null where the text is none. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * The state that a link's query asks for: `initial`, but for what the query names, if it is of the same type and `allowed`,
 * a list or a function, has it. Whatever else stands there is ignored.
 */
export function stateFrom(query, initial, allowed) {
  const state = { ...initial };
  for (const [name, text] of new URLSearchParams(query)) {
    const rule = Object.hasOwn(allowed, name) ? allowed[name] : [];
    const value = { number: text.trim() === "" ? NaN : Number(text), boolean: text === "true" || (text === "false" ? false : null), string: text, object: parsed(text) }[typeof initial[name]];
    if (Array.isArray(rule) ? rule.includes(value) : rule(value)) state[name] = value;
  }
  return state;
}

/** The query that asks for `state`: what differs from `initial`. */
export const queryOf = (state, initial) =>
  String(new URLSearchParams(Object.entries(state).filter(([name, value]) => value !== initial[name]).map(([name, value]) =>
    [name, typeof value === "object" ? JSON.stringify(value) : value])));

/**
 * The widget in `el`: its root, and its state, which are the traits in `traits`: { name: allowed values, as a list or a function }.
 *
 * get() reads the state, set({ name: value, ... }) writes it; draw() asks for a drawing, one for all
 * that changes at once. live(drawNow, ...ends) draws now and after every change of the state, and returns what `render` must
 * return: when the widget goes, it calls the `ends`. The reset button sets the state back and sends the event "reset" to the root,
 * for all that is no trait. isNarrow() says whether there is no more room than on a phone; when that changes, it is drawn anew.
 * `link` is what the site's host offers, to copy a link to the state and to open one.
 */
export function makeWidget({ model, el, link }, kind, title, traits) {
  const names = Object.keys(traits);
  const ruler = make("div"); // never higher: a drawing cannot change what is watched
  const root = make("div", { class: `edu ${kind}`, role: "group", "aria-label": title }, ruler);
  root.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab would take the arrow keys
  el.append(root);
  let [waiting, drawNow] = [false, () => {}];
  function draw() {
    if (!waiting) queueMicrotask(() => { waiting = false; drawNow(); });
    waiting = true;
  }
  let narrow = false;
  const isNarrow = () => (narrow = root.clientWidth > 0 && root.clientWidth <= PHONE);
  const watcher = new ResizeObserver(() => { const before = narrow; if (isNarrow() !== before) draw(); });
  const get = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  function set(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }
  const initial = get();
  function begin(state) {
    set(state);
    root.dispatchEvent(new Event("reset"));
    draw();
  }
  function makeTools() {
    const said = make("span", { role: "status" });
    const tools = make("div", { class: "tools" }, said);
    async function copy() {
      said.textContent = await link.copy(queryOf(get(), initial));
      setTimeout(() => said.replaceChildren(), 4000);
    }
    if (link) {
      tools.append(makeButton("Copy link", copy));
      link.open = (query) => begin(stateFrom(query, initial, traits));
    }
    tools.append(makeButton("Reset", () => begin(initial)));
    return tools;
  }
  return {
    root,
    draw,
    get,
    set,
    isNarrow,
    live(drawing, ...ends) {
      drawNow = drawing;
      for (const name of names) model.on(`change:${name}`, draw);
      drawNow();
      root.append(makeTools());
      watcher.observe(ruler);
      return () => {
        watcher.disconnect();
        drawNow = () => {};
        for (const name of names) model.off(`change:${name}`, draw);
        for (const end of ends) end();
      };
    },
  };
}

// ---- controls -----------------------------------------------------------------------------------------

/** A labelled slider over 0 ... count - 1, its value in `shown`; show(position, value, spoken) moves it and tells nobody. */
export function makeSlider(name, count, onInput, shown = make("output", { class: "value", "aria-live": "off" })) {
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

/** A row of radio buttons for choices [[value, text], ...]; show(value) checks one, or none, and tells nobody. */
export function makeRadios(legend, choices, onChoice) {
  const group = unique();
  const inputs = choices.map(([value]) => {
    const input = make("input", { type: "radio", name: group });
    input.addEventListener("change", () => onChoice(value));
    return input;
  });
  const labels = choices.map(([, text], i) => make("label", {}, inputs[i], text));
  return {
    node: make("fieldset", { class: "choices" }, make("legend", {}, legend), ...labels),
    show: (value) => inputs.forEach((input, i) => (input.checked = choices[i][0] === value)),
  };
}

/** A checkbox with its label; show(on) sets it and tells nobody. */
export function makeCheckbox(text, onChange) {
  const input = make("input", { type: "checkbox" });
  input.addEventListener("change", () => onChange(input.checked));
  return { node: make("label", { class: "check" }, input, text), show: (on) => (input.checked = on) };
}

/** A button. */
export function makeButton(text, onClick) {
  const button = make("button", { type: "button" }, text);
  button.addEventListener("click", onClick);
  return button;
}

/**
 * A play button: calls begin() once, then step() every `every` milliseconds, until step() answers false, the button is pressed
 * again, stop() is called, the widget is reset, or the reader moves something else (but for `through`). Where the reader wants
 * no motion, a press makes one step.
 */
export function makePlay(step, { begin = () => {}, every = 150, through = false } = {}) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const [icon, text] = [make("span", { "aria-hidden": "true" }), make("span")];
  const node = make("button", { type: "button", class: "play" }, icon, text);
  let [frame, last] = [null, 0];
  const show = () => {
    icon.textContent = frame === null ? "▶ " : "❚❚ ";
    text.textContent = calm ? "Next" : frame === null ? "Play" : "Pause";
  };
  function stop() {
    cancelAnimationFrame(frame);
    frame = null;
    show();
  }
  function tick(now) {
    frame = requestAnimationFrame(tick);
    if (now - last < every) return;
    last = now;
    if (step() === false) stop();
  }
  node.addEventListener("click", () => {
    if (frame !== null) return stop();
    const root = node.closest(".edu");
    for (const event of through ? ["reset"] : ["reset", "input"]) root.addEventListener(event, stop);
    begin();
    if (calm) step();
    else frame = requestAnimationFrame(tick);
    show();
  });
  show();
  return { node, stop };
}

/** A slider that plays from end to end in five seconds; position() says where it is, go(position) moves it. */
export function makePlayedSlider(name, count, position, go) {
  const step = () => {
    go(Math.min(position() + 1, count - 1));
    return position() < count - 1;
  };
  const play = makePlay(step, { begin: () => position() >= count - 1 && go(0), every: 5000 / count });
  const slider = makeSlider(name, count, go);
  return { node: make("div", { class: "played" }, play.node, slider.node), show: slider.show, stop: play.stop };
}

/** The place of the value in `values` that is nearest to `value`. */
export const nearest = (values, value) =>
  values.reduce((best, each, i) => (Math.abs(each - value) < Math.abs(values[best] - value) ? i : best), 0);

// ---- words --------------------------------------------------------------------------------------------

/** Visible text, and its copy for screen readers, which waits until the reader's hand rests. */
export function makeWords(root) {
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

/** So many decimals, with a true minus sign: -1.234 -> "−1.23". */
export const fixed = (value, decimals = 2) => {
  const text = Math.abs(value).toFixed(decimals);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
};

/** So many significant digits: 0.0000404 -> "4.04 × 10⁻⁵". */
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

// ---- pictures -----------------------------------------------------------------------------------------

/** A small chart over [0, 1]; y runs from low to high, ticks are [value, text]. Its functions x and y give places in `plot`. */
export function makeChart(title, xTicks, [low, high], yTicks) {
  const [width, height, left, top] = [302, 132, 34, 7];
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
  for (const [value, words] of xTicks) text(left + value * width, height + top + 17, value === 0 ? "start" : value === 1 ? "end" : "middle", words);
  const cursor = make("svg:path", { class: "cursor" });
  front.append(cursor);
  chart.append(front, plot);
  return {
    node: make("figure", {}, make("div", { class: "quiet" }, title), chart),
    plot,
    x,
    y,
    addCurve(colour, dash = "") {
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

/** The names of curves [{ name, colour, dash }, ...], each behind a piece of its line. */
export const makeLegend = (curves) => make("div", { class: "legend" }, ...curves.map(({ name, colour, dash = "" }) =>
  make("span", { style: `--colour: ${colour}` },
    make("svg:svg", { width: 30, height: 8, "aria-hidden": "true" }, make("svg:path", { d: "M0 4h30", "stroke-dasharray": dash })), ...typeset(name))));

/** A canvas of one blue, whose opacity at column i and row j is opacity(i, j), from 0 to 1: it suits any theme. */
export function makeCloud(columns, rows, opacity) {
  const canvas = make("canvas", { width: columns, height: rows });
  const image = new ImageData(columns, rows);
  for (let k = 0; k < columns * rows; k++)
    image.data.set([47, 109, 179, 255 * Math.min(1, opacity(k % columns, Math.floor(k / columns)))], 4 * k);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Bytes of a base64 text. */
export const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

// ---- random numbers -----------------------------------------------------------------------------------

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
