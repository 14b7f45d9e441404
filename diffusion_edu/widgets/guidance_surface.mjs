// A measured surface, explored: guided digits over the weight w and the share of dropped labels.
// Python: diffusion_edu/widgets/guidance_surface.py

import { make, makeChart, makeLegend, makeSlider, makeWidget, makeWords } from "./common.mjs";

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

// ---- the picture ------------------------------------------------------------------------------------

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
    return { of, colour, bars, dot: chart.addDot(), ...chart.addCurve(colour) };
  });
  return {
    node: make("div", {}, chart.node, makeLegend(measures)),
    draw(p, i) {
      for (const { of, colour, bars, dot, draw } of all) {
        const row = cells[of][p];
        draw(row.map(([value], k) => [x(w[k]), value]));
        bars.setAttribute("d", row.map(([value, error], k) => `M${chart.x(x(w[k]))} ${chart.y(value - error, 9)}V${chart.y(value + error, 9)}`).join(""));
        dot(x(w[i]), row[i][0], colour);
      }
      chart.moveCursor(x(w[i]));
    },
  };
}

async function render(host) {
  const { model } = host;
  const [ps, ws, [height, width]] = ["p_null", "w", "shape"].map((name) => model.get(name));
  const { root, set, live } = makeWidget(host, "edu-surface", "Guidance, measured", { p_index: [...ps.keys()], w_index: [...ws.keys()] });
  const sheet = new Image();
  sheet.src = `data:image/png;base64,${model.get("sprites")}`;
  await sheet.decode();
  const weight = makeSlider("guidance weight w", ws.length, (w_index) => set({ w_index }));
  const share = makeSlider("labels dropped", ps.length, (p_index) => set({ p_index }));

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

  return live(draw, words.stop);
}

export default { render };
