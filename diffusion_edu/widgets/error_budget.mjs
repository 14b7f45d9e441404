// What limits a sampler: the number of draws, of steps, or the network. Measured on the mixture in the plane.
// Python: diffusion_edu/widgets/error_budget.py

import { fixed, make, makeChart, makeLegend, makeRadios, makeSlider, makeWidget, makeWords } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

export const PARTS = { floor: "#9aa1ab", steps: "#d9822b", network: "#2f6db3" };

/** Mean over seeds, and the standard deviation between them. */
export function share(values) {
  const value = values.reduce((a, b) => a + b) / values.length;
  return { value, spread: Math.sqrt(values.reduce((sum, v) => sum + (v - value) ** 2, 0) / (values.length - 1)) };
}

/** The distance of one cell and its parts, as shares; data: { counts, trained, distances, floors }. */
export function split({ counts, trained, distances, floors }, { sampler, evaluations, training }) {
  const at = (n, steps) => distances[sampler][trained.indexOf(steps)][counts.indexOf(n)];
  const minus = (left, right) => left.map((value, i) => value - right[i]);
  const [here, exact] = [at(evaluations, training), at(evaluations, 0)];
  const parts = { total: here, floor: floors, steps: minus(exact, floors), network: minus(here, exact), "more steps": minus(here, at(counts.at(-1), training)) };
  return Object.fromEntries(Object.entries(parts).map(([name, values]) => [name, share(values)]));
}

/** What would help: "steps", "network", "both" or "nothing". A gain counts from twice its spread on, and from a quarter of the larger. */
export function limit(found, exact) {
  const [steps, network] = [found["more steps"], exact ? { value: 0, spread: 0 } : found.network];
  const real = ({ value, spread }) => value > Math.max(2 * spread, 0.004);
  const [byTraining, bySteps] = [real(network), real(steps)];
  if (!byTraining && !bySteps) return "nothing";
  if (byTraining && bySteps && Math.min(network.value, steps.value) > Math.max(network.value, steps.value) / 4) return "both";
  return byTraining && (!bySteps || network.value > steps.value) ? "network" : "steps";
}

// ---- words ------------------------------------------------------------------------------------------

const pm = ({ value, spread }) => `${fixed(value, 3)} ± ${spread.toFixed(3)}`;
const thousands = (n) => String(n).replace(/(\d)(?=(\d{3})+$)/g, "$1,");

/** What is seen, in sentences. */
export function describe({ sampler, evaluations, training }, found, { counts, noiseError, luck }) {
  const exact = training === 0;
  const most = counts.at(-1);
  const who = exact ? "the exact denoiser" : `the network of ${thousands(training)} training steps (its noise estimate is off by ${noiseError.toFixed(2)})`;
  const parts = `floor ${fixed(found.floor.value, 3)}, steps ${pm(found.steps)}${exact ? "" : `, network ${pm(found.network)}`}`;
  const odd = !exact && found.network.value < -2 * found.network.spread ? " Here the two errors partly cancel: distances do not add." : "";
  const gains = evaluations === most
    ? exact ? "" : `An exact network would save ${fixed(found.network.value, 3)}.`
    : `${most} evaluations would save ${fixed(found["more steps"].value, 3)}${exact ? "" : `, an exact network ${fixed(found.network.value, 3)}`}.`;
  const verdict = {
    steps: "The steps are the limit: take more of them.",
    network: "The network is the limit: more steps help little, a better network would.",
    both: "Both count: more steps would help, and a better network.",
    nothing: `Nothing is left that these draws can show: one set of exact draws varies by ${luck.toFixed(3)} itself.`,
  }[limit(found, exact)];
  return `${sampler}, ${evaluations} evaluations of ${who}. Distance from data ${pm(found.total)}: ${parts}.${odd} ${gains} ${verdict}`.replace("  ", " ");
}

// ---- the pictures -----------------------------------------------------------------------------------

const [LOW, HIGH] = [-1.75, 0]; // of log10 of a distance
const TICKS = [[-1.7, "0.02"], [-1.3, "0.05"], [-1, "0.1"], [-0.523, "0.3"], [0, "1"]];
const place = (values, value) => Math.log(value / values[0]) / Math.log(values.at(-1) / values[0]);

/** A chart of distances: curves over `xs`, the floor as a band, whiskers for the chosen curve, a dot. */
function makeDistances(title, xs, names, count, [low, high]) {
  const chart = makeChart(title, names, [LOW, HIGH], TICKS);
  const [top, bottom] = [high, low].map((value) => Number(chart.y(Math.log10(value))));
  chart.plot.append(make("svg:rect", { class: "band", x: 0, y: top, width: "100%", height: bottom - top }));
  const curves = Array.from({ length: count }, () => chart.addCurve("#2f6db3"));
  const bars = make("svg:path", { class: "bars" });
  const exact = chart.addCurve("currentColor", "4 3");
  chart.plot.append(bars);
  const dot = chart.addDot();
  return {
    node: chart.node,
    draw(rows, chosen, exactRow, at) {
      curves.forEach(({ curve, draw }, i) => {
        draw(rows[i].map(({ value }, k) => [place(xs, xs[k]), Math.log10(value)]));
        curve.classList.toggle("faint", i !== chosen);
      });
      exact.draw(exactRow.map(({ value }, k) => [place(xs, xs[k]), Math.log10(value)]));
      bars.setAttribute("d", rows[chosen] === undefined ? "" : rows[chosen].map(({ value, spread }, k) =>
        `M${chart.x(place(xs, xs[k]))} ${chart.y(Math.log10(value + spread))}V${chart.y(Math.log10(Math.max(1e-3, value - spread)))}`).join(""));
      const [k, value] = at;
      dot(k === null ? 1 : place(xs, xs[k]), Math.log10(value), "#2f6db3");
      chart.moveCursor(k === null ? 1 : place(xs, xs[k]));
    },
  };
}

/** The parts as one bar; the dark line is the distance, with a whisker for its spread over seeds. */
function makeBar() {
  const spans = Object.entries(PARTS).map(([, colour]) => make("span", { style: `--colour: ${colour}` }));
  const [total, whisker] = [make("b"), make("i")];
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, ...spans, whisker, total);
  const axis = make("div", { class: "axis quiet", "aria-hidden": "true" }, make("span", {}, "0"), make("span", {}, "distance from the data"), make("span"));
  return {
    nodes: [bar, axis],
    draw(found, scale) {
      const percent = (value) => `${(100 * value) / scale}%`;
      let left = 0;
      Object.keys(PARTS).forEach((name, i) => {
        const width = Math.max(0, Math.min(found[name].value, found.total.value - left));
        spans[i].style.left = percent(left);
        spans[i].style.width = percent(width);
        left += width;
      });
      total.style.left = percent(found.total.value);
      whisker.style.left = percent(found.total.value - found.total.spread);
      whisker.style.width = percent(2 * found.total.spread);
      axis.lastChild.textContent = scale.toFixed(1);
    },
  };
}

function render(host) {
  const { model } = host;
  const data = Object.fromEntries(["counts", "trained", "distances", "floors"].map((name) => [name, model.get(name)]));
  const { counts, trained, distances, floors } = data;
  const [luck, noiseErrors, floor] = [model.get("luck"), model.get("noise_errors"), share(floors).value];
  const networks = trained.filter((steps) => steps > 0);
  const { root, get, set, live } = makeWidget(host, "edu-budget", "The error budget of a sampler", { sampler: Object.keys(distances), evaluations: counts, training: trained });
  const samplers = makeRadios("sampler", Object.keys(distances).map((name) => [name, name]), (sampler) => set({ sampler }));
  const sliders = {
    evaluations: makeSlider("evaluations", counts.length, (position) => set({ evaluations: counts[position] })),
    training: makeSlider("training", trained.length, (position) => set({ training: trained[position] })),
  };
  const bar = makeBar();
  const names = (values, inner) => [values[0], ...inner.filter((n) => values[0] < n && n < values.at(-1)), values.at(-1)].map((value) => [place(values, value), thousands(value)]);
  const over = makeDistances("distance against evaluations", counts, names(counts, [5, 10, 20]), networks.length, [floor - luck, floor + luck]);
  const along = makeDistances("distance against training steps", networks, names(networks, [100, 300, 1000]), counts.length, [floor - luck, floor + luck]);
  const legend = makeLegend([...Object.entries(PARTS).map(([name, colour]) => ({ name, colour })), { name: "exact denoiser", colour: "var(--ink)", dash: "5 4" }]);
  root.append(samplers.node, sliders.evaluations.node, sliders.training.node, ...bar.nodes, legend, make("div", { class: "pair" }, over.node, along.node));
  const words = makeWords(root);

  function draw() {
    const cell = get();
    const { sampler, evaluations, training } = cell;
    const totals = (n, steps) => share(distances[sampler][trained.indexOf(steps)][counts.indexOf(n)]);
    const found = split(data, cell);
    const scale = Math.ceil(10 * Math.max(...distances[sampler].flat().map((values) => share(values).value))) / 10;
    bar.draw(found, scale);
    over.draw(networks.map((steps) => counts.map((n) => totals(n, steps))), networks.indexOf(training), counts.map((n) => totals(n, 0)), [counts.indexOf(evaluations), found.total.value]);
    along.draw(counts.map((n) => networks.map((steps) => totals(n, steps))), counts.indexOf(evaluations), networks.map(() => totals(evaluations, 0)), [training ? networks.indexOf(training) : null, found.total.value]);
    samplers.show(sampler);
    sliders.evaluations.show(counts.indexOf(evaluations), String(evaluations), `${evaluations} evaluations`);
    const said = training ? `${thousands(training)} training steps` : "the exact denoiser";
    sliders.training.show(trained.indexOf(training), training ? thousands(training) : "exact", said);
    words.say(describe(cell, found, { counts, noiseError: noiseErrors[trained.indexOf(training)], luck }));
  }

  return live(draw, words.stop);
}

export default { render };
