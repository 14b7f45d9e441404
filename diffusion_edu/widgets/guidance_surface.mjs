// A measured surface, explored: guided digits over the weight w and the share of dropped labels.
// Python: diffusion_edu/widgets/guidance_surface.py

// ---- words ------------------------------------------------------------------------------------------

/** [0.953, 0.009] -> "95.3 ± 0.9 %". */
export const percent = ([value, error]) => `${(100 * value).toFixed(1)} ± ${(100 * error).toFixed(1)} %`;

/** The place [p, w] of the lowest value in rows[p][w] = [value, error]. */
export function lowest(rows) {
  let best = [0, 0];
  rows.forEach((row, p) => row.forEach(([value], w) => { if (value < rows[best[0]][best[1]][0]) best = [p, w]; }));
  return best;
}

/** How many deviations of the difference lie between two measured values [value, error]. */
export const apart = ([a, ea], [b, eb]) => Math.abs(a - b) / Math.max(Math.hypot(ea, eb), 1e-12);

/** What is seen in cell (p, w), in sentences. */
export function describe({ p_null, w, cells }, p, i) {
  const cell = (name) => cells[name][p][i];
  const [bestP, bestW] = lowest(cells.frechet);
  const best = cells.frechet[bestP][bestW];
  const now = cell("frechet");
  const facts = `w = ${w[i]}, labels dropped with p∅ = ${p_null[p]}: ${percent(cell("accuracy"))} are read as asked. Precision ${percent(cell("precision"))}, recall ${percent(cell("recall"))}. Fréchet distance ${now[0].toFixed(2)} ± ${now[1].toFixed(2)}.`;
  if (bestP === p && bestW === i) return `${facts}\nThis is the lowest Fréchet distance of the surface; neighbours within the bars are as good.`;
  const far = apart(now, best);
  const verdict = far < 2 ? `which cannot be told from this one: ${far.toFixed(1)} standard errors` : `${far.toFixed(0)} standard errors below this one`;
  return `${facts}\nThe lowest of the surface is ${best[0].toFixed(2)} ± ${best[1].toFixed(2)}, at w = ${w[bestW]} and p∅ = ${p_null[bestP]}, ${verdict}.`;
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

const SHARES = [
  { of: "accuracy", name: "accuracy", colour: "#2f6db3" },
  { of: "precision", name: "precision", colour: "#3d9970" },
  { of: "recall", name: "recall", colour: "#d9822b" },
];
const DISTANCE = [{ of: "frechet", name: "Fréchet distance", colour: "#8a5fb5" }];

/** A chart of some measures over w at one p_null: curves, bars of one standard error, floors, and the current point. */
function makeMeasures(title, measures, model, top, ticks) {
  const [w, cells, floors] = ["w", "cells", "floors"].map((name) => model.get(name));
  const last = w.at(-1);
  const chart = makeChart(title, [[0, `w = ${w[0]}`], [0.5, String((w[0] + last) / 2)], [1, String(last)]], [0, top], ticks);
  const x = (value) => (value - w[0]) / (last - w[0]);
  const all = measures.map(({ of, colour }) => {
    if (floors[of] !== undefined) chart.addCurve(colour, "2 4").draw([[0, floors[of]], [1, floors[of]]]);
    const bars = make("svg:path", { class: "bars", style: `--colour: ${colour}` });
    chart.plot.append(bars);
    return { of, colour, bars, dot: chart.addDot(), ...chart.addCurve(colour, "") };
  });
  const legend = make("div", { class: "legend" }, ...measures.map(({ name, colour }) => make("span", { style: `--colour: ${colour}` }, make("i"), name)));
  return {
    node: make("div", {}, chart.node, legend),
    draw(p, i) {
      for (const { of, colour, bars, dot, draw } of all) {
        const row = cells[of][p];
        draw(row.map(([value], k) => [x(w[k]), value]));
        bars.setAttribute("d", row.map(([value, error], k) => `M${(306 * x(w[k])).toFixed(1)} ${chart.y(value - error, 9)}V${chart.y(value + error, 9)}`).join(""));
        dot(x(w[i]), row[i][0], colour);
      }
      chart.moveCursor(x(w[i]));
    },
  };
}

async function render({ model, el }) {
  const [ps, ws, [height, width]] = ["p_null", "w", "shape"].map((name) => model.get(name));
  const root = makeRoot(el, "edu-surface", "Guidance, measured");
  const sheet = new Image();
  sheet.src = `data:image/png;base64,${model.get("sprites")}`;
  await sheet.decode();
  const go = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const weight = makeSlider("guidance weight w", ws.length, (position) => go("w_index", position));
  const share = makeSlider("labels dropped", ps.length, (position) => go("p_index", position));

  const pens = [];
  const film = make("div", { class: "digits", role: "img", "aria-label": "Ten guided digits, one of each class, from the same ten noises" });
  for (let digit = 0; digit < 10; digit++) {
    const canvas = make("canvas", { width, height });
    const pen = canvas.getContext("2d");
    pens.push((row) => pen.drawImage(sheet, digit * width, row * height, width, height, 0, 0, width, height));
    film.append(canvas);
  }
  const highest = Math.max(...model.get("cells").frechet.flat().map(([value]) => value));
  const step = [0.5, 1, 2, 5, 10, 20, 50, 100, 200].find((each) => highest / each <= 5) ?? highest / 4;
  const top = Math.ceil(highest / step) * step;
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => [i * step, String(i * step)]);
  const charts = [
    makeMeasures("Shares (dotted: real digits)", SHARES, model, 1, [[0, "0"], [0.5, "0.5"], [1, "1"]]),
    makeMeasures("Fréchet distance (dotted: real digits)", DISTANCE, model, top, ticks),
  ];
  const text = make("div");
  root.append(weight.node, share.node, film, make("div", { class: "below" }, ...charts.map(({ node }) => node)), text);
  const words = makeWords(text);
  const surface = { p_null: ps, w: ws, cells: model.get("cells") };

  function draw() {
    const [p, i] = [model.get("p_index"), model.get("w_index")];
    weight.show(i, String(ws[i]), `guidance weight ${ws[i]}`);
    share.show(p, String(ps[p]), `labels dropped with probability ${ps[p]}`);
    pens.forEach((pen) => pen(p * ws.length + i));
    charts.forEach((chart) => chart.draw(p, i));
    words.say(describe(surface, p, i));
  }

  const events = ["change:p_index", "change:w_index"];
  for (const event of events) model.on(event, draw);
  draw();
  return () => {
    words.stop();
    for (const event of events) model.off(event, draw);
  };
}

export default { render };
