// The evidence of one observation, its lower bound, and the gap, while the reader moves q.
// Python: diffusion_edu/widgets/evidence_gap.py

import { between, fixed, make, makeButton, makeChart, makeLegend, makeRadios, makeSlider, makeWidget, makeWords } from "./common.mjs";

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

/** What is seen now, in sentences. */
export function describe(state) {
  const now = terms(state);
  const best = terms({ ...state, ...bestQ(state) });
  const sum = `log p(x) = ${fixed(now.evidence)} nats. This q promises ${fixed(now.elbo)}: reconstruction ${fixed(now.reconstruction)}, less ${fixed(now.klPrior)} for leaving the prior. The gap is ${fixed(now.gap)} nats, and it is KL(q ‖ posterior).`;
  if (now.gap < 0.005) return `${sum}\nq is the true posterior: the bound is exact.`;
  const spare = now.gap - best.gap;
  if (spare < 0.005)
    return `${sum}\nNo Gaussian on this side does better. ${Math.abs(state.mean) > 0.3 ? "The posterior has two humps; q sits on one and gives up the other, which costs about log 2 = 0.69." : "The posterior is no Gaussian."}`;
  return `${sum}\nThe best Gaussian on this side of 0 would leave a gap of ${fixed(best.gap)}: ${fixed(spare)} nats are wasted by the choice of q.`;
}

// ---- the picture ------------------------------------------------------------------------------------

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
    const legend = make("div", { class: "legend blocks" });
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
          values[row][i].textContent = fixed(value(now));
        }
      axis.replaceChildren(make("span", {}, "0"), make("span", {}, `${scale / 2}`), make("span", {}, `${scale} nats`));
      picture.setAttribute("aria-label", `Two bars of ${fixed(-now.elbo)} nats: ${BARS.map((pair) => pair.map(([name, , value]) => `${name} ${fixed(value(now))}`).join(" plus ")).join("; ")}`);
    },
  };
}

function render(host) {
  const { root, get, set, live } = makeWidget(host, "edu-evidence", "The evidence and its bound", {
    decoder: DECODERS.map(([key]) => key),
    ...Object.fromEntries(Object.entries(LIMITS).map(([name, limits]) => [name, between(...limits)])),
  });

  const sliders = [["mean", "mean of q"], ["width", "width of q"], ["x", "observed x"], ["noise", "decoder’s noise"]].map(([name, label]) => {
    const [low, high] = LIMITS[name];
    const slider = makeSlider(label, Math.round((high - low) / STEP) + 1, (position) => set({ [name]: Number((low + position * STEP).toFixed(2)) }));
    return { node: slider.node, draw: (state) => slider.show(Math.round((state[name] - low) / STEP), fixed(state[name]), `${label} ${fixed(state[name])}`) };
  });

  const decoders = makeRadios("decoder", DECODERS, (decoder) => set({ decoder }));
  const button = makeButton("Best q", () => set(bestQ(get())));

  const [low, high] = SHOWN;
  const chart = makeChart("Densities of z", [[0, `z = ${fixed(low, 0)}`], [0.5, "0"], [1, `${high}`]], [0, 1], []);
  const curves = CURVES.map(({ key, colour, dash }) => ({ key, ...chart.addCurve(colour, dash) }));
  const bars = makeBars();
  const handles = make("div", { class: "handles" }, ...sliders.map(({ node }) => node), make("div", { class: "drive" }, decoders.node, button));
  const text = make("div");
  root.append(make("div", { class: "two" }, make("div", {}, chart.node, makeLegend(CURVES)), handles), bars.node, text);
  const words = makeWords(text);

  function draw() {
    const state = get();
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
    for (const slider of sliders) slider.draw(state);
    decoders.show(state.decoder);
    bars.draw(now);
    words.say(describe(state));
  }

  return live(draw, words.stop);
}

export default { render };
