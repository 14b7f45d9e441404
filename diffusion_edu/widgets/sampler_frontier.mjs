// The measured frontier, explored: what each sampler draws with so many evaluations, and whether the figures can tell.
// Python: diffusion_edu/widgets/sampler_frontier.py

import { make, makeLegend, makeRadios, makeSlider, makeWidget, makeWords, whole } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

export const [SIDE, CLEAR] = [28, 3];

/** The place in `cells` of the sampler's cell with the nearest number of evaluations, and of two the smaller. */
export function placeOf(cells, sampler, evaluations) {
  let best = -1;
  cells.forEach((cell, i) => {
    const closer = best < 0 || Math.abs(cell.evaluations - evaluations) < Math.abs(cells[best].evaluations - evaluations);
    if (cell.sampler === sampler && closer) best = i;
  });
  return best;
}

/** The place of the cell with the lowest Fréchet distance. */
export const bestOf = (cells) => cells.reduce((best, cell, i) => (cell.frechet < cells[best].frechet ? i : best), 0);

/** Difference of two cells' Fréchet distances in combined standard errors: 0 for a cell and itself. */
export const apart = (a, b) => Math.abs(a.frechet - b.frechet) / Math.hypot(a.frechet_error, b.frechet_error);

/** The fewest evaluations of this sampler from which on no cell can be told from the best; null if the last one can. */
export function enough(cells, sampler) {
  const best = cells[bestOf(cells)];
  const own = cells.filter((cell) => cell.sampler === sampler);
  let from = null;
  for (const cell of own.reverse()) {
    if (apart(cell, best) > CLEAR) break;
    from = cell.evaluations;
  }
  return from;
}

/** The numbers 1, 2, 5, 10, ... (and 0.5, 0.2, ...) in [low, high]. */
export function ladder(low, high) {
  const steps = [];
  for (let k = Math.floor(Math.log10(low)); 10 ** k <= high; k++) steps.push(...[1, 2, 5].map((digit) => Number(`${digit}e${k}`)));
  return steps.filter((step) => low <= step && step <= high);
}

/** What the axis of distances shows: from below the lowest cell and the floor up to forty times that; worse is off the chart. */
export function limits(cells) {
  const lowest = Math.min(...cells.flatMap((cell) => [cell.frechet, cell.floor - cell.floor_error]));
  const low = ladder(1e-3, Math.max(0.9 * lowest, 1e-2)).at(-1);
  return [low, ladder(40 * low, 100 * low)[0]];
}

/** Places near `places` that are at least `gap` apart, in the same order, none beyond `low` and `high` where there is room. */
export function spreadOut(places, gap, low, high) {
  const order = places.map((_, i) => i).sort((i, j) => places[i] - places[j]);
  const found = [...places];
  order.forEach((i, k) => (found[i] = Math.max(found[i], k ? found[order[k - 1]] + gap : low)));
  const middle = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const shift = Math.max(low - found[order[0]], Math.min(middle(places) - middle(found), high - found[order.at(-1)]));
  return found.map((place) => place + shift);
}

// ---- words ------------------------------------------------------------------------------------------

const GRIDS = { uniform: "even in t", log_snr: "even in log-SNR", edm: "EDM, ρ = 7" };
const short = (value) => value.toFixed(value < 10 ? 2 : 0);
const pm = (cell) => `${short(cell.frechet)}\u00a0±\u00a0${cell.frechet_error.toFixed(cell.frechet < 10 ? 2 : 0)}`;

/** What is seen, in sentences. */
export function describe(cells, cell) {
  const best = cells[bestOf(cells)];
  const gap = apart(cell, best);
  const verdict = cell === best
    ? "No cell has a lower one. It was picked as the lowest of all, so chance flatters it."
    : gap > CLEAR
      ? `It can be told from the best cell, ${best.sampler} with ${best.evaluations} evaluations (${pm(best)}): they are ${gap.toFixed(1)} combined standard errors apart.`
      : `It cannot be told from the best cell, ${best.sampler} with ${best.evaluations} evaluations (${pm(best)}): they are only ${gap.toFixed(1)} combined standard errors apart.`;
  const above = (cell.frechet - cell.floor) / Math.hypot(cell.frechet_error, cell.floor_error);
  const floor = `Real digits get ${cell.floor.toFixed(2)}\u00a0±\u00a0${cell.floor_error.toFixed(2)}, ${above > CLEAR ? "clearly less" : "not clearly less with so few"}.`;
  const from = enough(cells, cell.sampler);
  const advice = from === null
    ? `${cell.sampler} can be told from the best at its largest number of evaluations, too.`
    : `From ${from} evaluations on, ${cell.sampler} cannot be told from the best.`;
  return `${cell.sampler}, ${cell.evaluations} evaluations, grid ${GRIDS[cell.grid] ?? cell.grid}. ${cell.samples} digits: Fréchet distance ${pm(cell)}; ${(100 * cell.accuracy).toFixed(1)}\u00a0±\u00a0${(100 * cell.accuracy_error).toFixed(1)}\u00a0% are read as asked.\n${verdict} ${floor} ${advice}`;
}

// ---- the pictures -----------------------------------------------------------------------------------

const COLOUR = "#2f6db3";
const [FEWEST, MOST, GAP] = [2.8, 215, 16]; // ends of the axis of evaluations; how far apart labels stand
const SIZES = { wide: [640, 330, 152], narrow: [340, 300, 10] }; // width, height, and what the names at the right take

/** A row of large digits with its title; draw(row) cuts them out of the sheet. */
function makeDigits(sheet, shown, kind) {
  const canvas = make("canvas", { width: shown * (SIDE + 2) - 2, height: SIDE, role: "img" });
  const title = make("div", { class: "quiet" });
  return {
    node: make("figure", { class: kind }, title, canvas),
    draw(row, text, spoken) {
      title.textContent = text;
      canvas.setAttribute("aria-label", spoken);
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, canvas.width, SIDE);
      for (let i = 0; i < shown; i++) pen.drawImage(sheet, i * SIDE, row * SIDE, SIDE, SIDE, i * (SIDE + 2), 0, SIDE, SIDE);
    },
  };
}

/** Every sampler's curve on logarithmic axes, named at its end; draw(chosen cell, narrow) puts the chosen one forward. */
function makeCurves(cells, names) {
  const chart = make("svg:svg", { role: "img", "aria-label": "Fréchet distance of each sampler against evaluations, both axes logarithmic" });
  const rows = names.map((name) => cells.filter((cell) => cell.sampler === name));
  const [low, high] = limits(cells);
  const best = cells[bestOf(cells)];
  function draw(cell, narrow) {
    const [width, height, room] = SIZES[narrow ? "narrow" : "wide"];
    const [left, top, right, bottom] = [32, 8, width - room, height - 40];
    const x = (n) => left + (Math.log(n / FEWEST) / Math.log(MOST / FEWEST)) * (right - left);
    const y = (value) => top + (Math.log(high / Math.max(value, 1e-3)) / Math.log(high / low)) * (bottom - top);
    const text = (a, b, anchor, words, kind = "") => make("svg:text", { x: a.toFixed(1), y: b.toFixed(1), "text-anchor": anchor, class: kind }, words);
    const plot = make("svg:svg", { x: left, y: top, width: right - left, height: bottom - top, viewBox: `${left} ${top} ${right - left} ${bottom - top}` }); // clips what leaves it
    const [band, under] = [cell.floor + cell.floor_error, cell.floor - cell.floor_error].map(y);
    plot.append(make("svg:rect", { class: "band", x: left, width: right - left, y: band, height: under - band }));
    for (const tick of ladder(low, high)) plot.append(make("svg:path", { class: "rule", d: `M${left} ${y(tick).toFixed(1)}H${right}` }));
    const path = (i) => "M" + rows[i].map((each) => `${x(each.evaluations).toFixed(1)} ${y(each.frechet).toFixed(1)}`).join("L");
    const chosen = names.indexOf(cell.sampler);
    names.forEach((_, i) => i !== chosen && plot.append(make("svg:path", { class: "other", d: path(i) })));
    plot.append(make("svg:path", { class: "cursor", d: `M${x(cell.evaluations).toFixed(1)} ${top}V${bottom}` }));
    for (const each of rows[chosen]) plot.append(make("svg:path", { class: each === cell ? "bars" : "bars faint", d: `M${x(each.evaluations).toFixed(1)} ${y(each.frechet + each.frechet_error).toFixed(1)}V${y(each.frechet - each.frechet_error).toFixed(1)}` }));
    plot.append(make("svg:path", { class: "curve", d: path(chosen) }));
    const off = cell.frechet > high;
    const [a, b] = [x(cell.evaluations), Math.max(y(cell.frechet), top + 6)];
    const mark = make("svg:path", { class: "dot", transform: `translate(${a.toFixed(1)} ${b.toFixed(1)})`, d: off ? "M0 -6L6 5H-6z" : "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0z" });
    const side = a > right - 60 ? "end" : a < left + 60 ? "start" : "middle";
    chart.replaceChildren(
      plot,
      ...ladder(low, high).map((tick) => text(left - 6, y(tick) + 4, "end", String(tick))),
      ...[4, 10, 20, 50, 100, 200].map((n) => text(x(n), bottom + 17, "middle", String(n))),
      text((left + right) / 2, bottom + 35, "middle", "evaluations of the network"),
      text(left + 5, under + 15, "start", `real digits: ${cell.floor.toFixed(2)} ± ${cell.floor_error.toFixed(2)}`, "name"),
      make("svg:circle", { class: "ring", r: 6, cx: x(best.evaluations), cy: y(best.frechet) }),
      mark,
      text(a, off ? b + 22 : Math.max(y(cell.frechet + cell.frechet_error) - 7, top + 12), side, `${pm(cell)}${off ? ", off the chart" : ""}`, "name chosen"));
    if (!narrow) {
      const ends = rows.map((row) => Math.max(y(row.at(-1).frechet), top));
      const places = spreadOut(ends, GAP, top + 4, bottom);
      rows.forEach((row, i) => chart.append(
        make("svg:path", { class: i === chosen ? "lead chosen" : "lead", d: `M${(x(row.at(-1).evaluations) + 2).toFixed(1)} ${ends[i].toFixed(1)}L${right + 14} ${places[i].toFixed(1)}` }),
        text(right + 18, places[i] + 4, "start", names[i], i === chosen ? "chosen" : "")));
    }
    chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }
  return { chart, draw };
}

function render(host) {
  const { model } = host;
  const [cells, shown] = [model.get("cells"), model.get("shown")];
  const names = [...new Set(cells.map((cell) => cell.sampler))];
  const best = bestOf(cells);
  const { root, get, set, isNarrow, live } = makeWidget(host, "edu-frontier", "The measured frontier", { sampler: names, evaluations: whole(1, 1e4) });
  const samplers = makeRadios("sampler", names.map((name) => [name, name]), (sampler) => set({ sampler }));
  const own = () => cells.filter((cell) => cell.sampler === get().sampler);
  const slider = makeSlider("evaluations", 2, (position) => set({ evaluations: own()[position].evaluations }));
  const input = slider.node.querySelector("input");
  const sheet = new Image();
  const [digits, others] = ["chosen", "best"].map((kind) => makeDigits(sheet, shown, kind));
  const { chart, draw: drawCurves } = makeCurves(cells, names);
  const key = makeLegend([{ name: "", colour: COLOUR }, { name: "the other samplers", colour: "#8b929c" }]);
  const title = make("div", { class: "quiet" }, "Fréchet distance, lower is better; bars: standard errors; ring: the lowest of all");
  root.append(samplers.node, slider.node, make("div", { class: "pair" }, digits.node, others.node), make("figure", {}, title, key, chart));
  const words = makeWords(root);

  function draw() {
    const { sampler, evaluations } = get();
    const row = placeOf(cells, sampler, evaluations);
    const [cell, mine] = [cells[row], own()];
    samplers.show(sampler);
    input.max = mine.length - 1;
    slider.show(mine.indexOf(cell), String(cell.evaluations), `${cell.evaluations} evaluations`);
    if (sheet.complete && sheet.naturalWidth) {
      digits.draw(row, `${sampler}, ${cell.evaluations} evaluations`, `${shown} digits by ${sampler} with ${cell.evaluations} evaluations`);
      others.draw(best, `the lowest distance: ${cells[best].sampler}, ${cells[best].evaluations}`, `${shown} digits of the cell with the lowest distance`);
    }
    key.hidden = !isNarrow();
    key.firstChild.lastChild.textContent = sampler;
    drawCurves(cell, isNarrow());
    words.say(describe(cells, cell));
  }

  const end = live(draw, words.stop);
  sheet.addEventListener("load", draw);
  sheet.src = `data:image/png;base64,${model.get("sprites")}`;
  return end;
}

export default { render };
