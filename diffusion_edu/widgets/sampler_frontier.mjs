// The measured frontier, explored: what each sampler draws with so many evaluations, and whether the figures can tell.
// Python: diffusion_edu/widgets/sampler_frontier.py

import { make, makeChart, makeRadios, makeSlider, makeWidget, makeWords } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

export const [SIDE, CLEAR] = [28, 2];

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

// ---- words ------------------------------------------------------------------------------------------

const GRIDS = { uniform: "even in t", log_snr: "even in log-SNR", edm: "EDM, ρ = 7" };
const short = (value) => value.toFixed(value < 10 ? 2 : 0);
const pm = (cell) => `${short(cell.frechet)} ± ${cell.frechet < 10 ? cell.frechet_error.toFixed(2) : short(cell.frechet_error)}`;

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
  const floor = `Real digits get ${cell.floor.toFixed(2)} ± ${cell.floor_error.toFixed(2)}, ${above > CLEAR ? "clearly less" : "not clearly less with so few"}.`;
  const from = enough(cells, cell.sampler);
  const advice = from === null
    ? `${cell.sampler} can be told from the best at its largest number of evaluations, too.`
    : `From ${from} evaluations on, ${cell.sampler} cannot be told from the best.`;
  return `${cell.sampler}, ${cell.evaluations} evaluations, grid ${GRIDS[cell.grid] ?? cell.grid}. ${cell.samples} digits: Fréchet distance ${pm(cell)}; ${(100 * cell.accuracy).toFixed(1)} ± ${(100 * cell.accuracy_error).toFixed(1)} % are read as asked. ${verdict} ${floor} ${advice}`;
}

// ---- the pictures -----------------------------------------------------------------------------------

const COLOURS = ["#2f6db3", "#d9822b", "#3d9970", "#8a5fb5", "#c0504d", "#6b7280"];
const [FEWEST, MOST, LOW, HIGH] = [4, 250, -0.4, 2.9]; // of the axes: evaluations, and log10 of the distance
const across = (n) => Math.min(1, Math.max(0, Math.log(n / FEWEST) / Math.log(MOST / FEWEST)));

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

function render(host) {
  const { model } = host;
  const [cells, shown] = [model.get("cells"), model.get("shown")];
  const names = [...new Set(cells.map((cell) => cell.sampler))];
  const colour = (name) => COLOURS[names.indexOf(name) % COLOURS.length];
  const best = bestOf(cells);
  const { root, get, set, live } = makeWidget(host, "edu-frontier", "The measured frontier", ["sampler", "evaluations"]);
  const samplers = makeRadios("sampler", names.map((name) => [name, name]), (sampler) => set({ sampler }));
  const own = () => cells.filter((cell) => cell.sampler === get().sampler);
  const slider = makeSlider("evaluations", 2, (position) => set({ evaluations: own()[position].evaluations }));
  const input = slider.node.querySelector("input");
  const sheet = new Image();
  const [digits, others] = ["chosen", "best"].map((kind) => makeDigits(sheet, shown, kind));
  const chart = makeChart("Fréchet distance; band: real digits", [[0, "4"], [0.5, "32"], [1, "250"]], [LOW, HIGH], [[0, "1"], [1, "10"], [2, "100"]]);
  const level = (value) => Number(chart.y(Math.log10(Math.max(1e-3, value))));
  const band = make("svg:rect", { class: "band", x: 0, width: "100%" });
  const bars = make("svg:path", { class: "bars" });
  chart.plot.append(band);
  const curves = names.map((name, i) => chart.addCurve(colour(name), i < COLOURS.length ? "" : "5 3"));
  chart.plot.append(bars);
  const dot = chart.addDot();
  root.append(samplers.node, slider.node, make("div", { class: "pair" }, make("div", {}, digits.node, others.node), chart.node));
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
      others.draw(best, `the best cell: ${cells[best].sampler}, ${cells[best].evaluations}`, `${shown} digits of the best cell`);
    }
    const [top, bottom] = [cell.floor + cell.floor_error, cell.floor - cell.floor_error].map(level);
    band.setAttribute("y", top);
    band.setAttribute("height", bottom - top);
    curves.forEach(({ curve, draw }, i) => {
      draw(cells.filter((each) => each.sampler === names[i]).map((each) => [across(each.evaluations), Math.log10(each.frechet)]));
      curve.classList.toggle("faint", names[i] !== sampler);
    });
    bars.style.setProperty("--colour", colour(sampler));
    bars.setAttribute("d", mine.map((each) => `M${chart.x(across(each.evaluations))} ${level(each.frechet + each.frechet_error)}V${level(each.frechet - each.frechet_error)}`).join(""));
    dot(across(cell.evaluations), Math.log10(cell.frechet), colour(sampler));
    chart.moveCursor(across(cell.evaluations));
    words.say(describe(cells, cell));
  }

  const end = live(draw, words.stop);
  sheet.addEventListener("load", draw);
  sheet.src = `data:image/png;base64,${model.get("sprites")}`;
  return end;
}

export default { render };
