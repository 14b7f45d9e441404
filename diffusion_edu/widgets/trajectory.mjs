// Sampling, watched: a slider over the states x_t of a real run and the denoiser's estimates x0_hat.
// Python: diffusion_edu/widgets/trajectory.py

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

/** What is seen at t, in sentences; snr is null where there is no noise, distance that of x0_hat to the end. */
export function describe(t, snr, distance) {
  if (snr === null) return "t = 0: the finished images. The last step added no noise.";
  const balance = snr < 0 ? `noise ${inWords(Math.exp(-snr), 2)} times the signal` : `signal ${inWords(Math.exp(snr), 2)} times the noise`;
  return `t = ${t.toFixed(2)}, log-SNR ${inWords(snr)}: in x_t there is ${balance}. The estimate x̂_0 differs from the finished image by ${inWords(distance, 2)} (root mean square; black is −1, white 1).`;
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

const FILM = 5; // images side by side
const CURVES = [
  { of: "state_distances", name: "xₜ", colour: "#6b7280", dash: "6 3" },
  { of: "distances", name: "x̂₀", colour: "#2f6db3", dash: "" },
];

/** Canvases for images first ... last - 1 of the sprite sheet, x_t above x0_hat. */
function makeFilm(sheet, labels, [height, width], first) {
  const mine = labels.slice(first, first + FILM);
  const film = make("div", { class: "film", style: `--columns: ${mine.length}` });
  const pens = [];
  film.append(make("i"), ...mine.map((label) => make("b", {}, label)));
  for (const [row, name] of ["x_t", "x̂_0"].entries()) {
    film.append(make("i", {}, ...typeset(name)));
    mine.forEach((_, column) => {
      const canvas = make("canvas", { width, height });
      const pen = canvas.getContext("2d");
      pens.push((frame) => pen.drawImage(sheet, (first + column) * width, (2 * frame + row) * height, width, height, 0, 0, width, height));
      film.append(canvas);
    });
  }
  return { film, show: (frame) => pens.forEach((draw) => draw(frame)) };
}

async function render({ model, el }) {
  const [times, snrs, labels, shape] = ["times", "log_snrs", "labels", "shape"].map((name) => model.get(name));
  const distances = model.get("distances");
  const last = times.length - 1;
  const root = makeRoot(el, "edu-trajectory", "Sampling, watched");
  const sheet = new Image();
  sheet.src = `data:image/png;base64,${model.get("sprites")}`;
  await sheet.decode();

  const go = (frame) => {
    model.set("time_index", frame);
    model.save_changes();
  };

  const slider = makeSlider("time", times.length, (frame) => {
    pause();
    go(frame);
  });
  const button = make("button", { type: "button" }, "▶ Play");
  let timer = null;
  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = "▶ Play";
    draw();
  }
  function play() {
    button.textContent = "❚❚ Pause";
    if (model.get("time_index") === last) go(0);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = setInterval(() => (model.get("time_index") < last ? go(model.get("time_index") + 1) : pause()), calm ? 800 : 150);
  }
  button.addEventListener("click", () => (timer === null ? play() : pause()));

  const films = [];
  for (let first = 0; first < labels.length; first += FILM) films.push(makeFilm(sheet, labels, shape, first));
  const pictures = make("div", { class: "films", role: "img", "aria-label": `Images ${labels.join(", ")}: the state x_t above, the estimate of the finished image below` }, ...films.map((each) => each.film));

  const highest = Math.ceil(5 * Math.max(...CURVES.flatMap(({ of }) => model.get(of)))) / 5;
  const ticks = Array.from({ length: Math.floor(highest / 0.5) + 1 }, (_, i) => [i / 2, String(i / 2)]);
  const chart = makeChart("Distance to the finished image (root mean square)", [[0, "t = 1, noise"], [1, "data, t = 0"]], [0, highest], ticks);
  const dots = CURVES.map(({ of, name, colour, dash }) => {
    const values = model.get(of);
    chart.addCurve(colour, dash).draw(values.map((value, frame) => [1 - times[frame], value]));
    chart.plot.append(make("svg:text", { x: 6, y: Number(chart.y(values[0])) + 16 }, name));
    const moveDot = chart.addDot();
    return (frame) => moveDot(1 - times[frame], values[frame], colour);
  });

  const text = make("div");
  root.append(make("div", { class: "drive" }, button, slider.node), pictures, make("div", { class: "below" }, chart.node, text));
  const words = makeWords(text);

  function draw() {
    const frame = model.get("time_index");
    slider.show(frame, `t = ${times[frame].toFixed(2)}`, `t ${times[frame].toFixed(2)}, frame ${frame + 1} of ${last + 1}`);
    films.forEach(({ show }) => show(frame));
    dots.forEach((move) => move(frame));
    chart.moveCursor(1 - times[frame]);
    words.say(describe(times[frame], snrs[frame], distances[frame]));
  }

  model.on("change:time_index", draw);
  draw();
  return () => {
    clearInterval(timer);
    words.stop();
    model.off("change:time_index", draw);
  };
}

export default { render };
