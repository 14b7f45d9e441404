// The posterior q(x_s | x_t, x_0) on a line: what x_0 says of x_s, what x_t says of it, and both together.
// Python: diffusion_edu/widgets/posterior_explorer.py. Its numbers and those here agree to 1e-9 (tests/js).

import { between, fixed, inWords, make, makeChart, makeLegend, makeSlider, makeWidget, makeWords } from "./common.mjs";

// ---- mathematics, as in diffusion_edu.process -------------------------------------------------------

const S = 0.008;
const START = (S / (1 + S)) * (Math.PI / 2);

/** alpha and sigma of the cosine schedule. */
export function coefficients(t) {
  const u = ((t + S) / (1 + S)) * (Math.PI / 2);
  return { alpha: Math.cos(u) / Math.cos(START), sigma: Math.sqrt(Math.sin(u - START) * Math.sin(u + START)) / Math.cos(START) };
}

/** The three bells [mean, deviation], the weights of x_t and x_0 in the mean, and the variances of a step back. */
export function posterior(t, s, x_t, x_0) {
  const [now, before] = [coefficients(t), coefficients(s)];
  const ratio = now.alpha / before.alpha;
  const large = now.sigma ** 2 - ratio ** 2 * before.sigma ** 2;
  const share = before.sigma ** 2 / now.sigma ** 2; // small / large
  const weights = [ratio * share, (before.alpha * large) / now.sigma ** 2];
  const small = large * share;
  return {
    prior: [before.alpha * x_0, before.sigma],
    likelihood: [x_t / ratio, Math.sqrt(large) / ratio],
    both: [weights[0] * x_t + weights[1] * x_0, Math.sqrt(small)],
    weights,
    small,
    large,
    share: large / now.sigma ** 2, // of x_0 in the precision
  };
}

/** What is seen now, in sentences. */
export function describe(t, s, x_t, x_0) {
  const { both: [mean, std], weights, small, large, share } = posterior(t, s, x_t, x_0);
  const first = `From x_t = ${fixed(x_t, 1)} at t = ${fixed(t)} back to s = ${fixed(s)}, with x_0 = ${fixed(x_0, 1)}: mean ${fixed(weights[0])} x_t + ${fixed(weights[1])} x_0 = ${fixed(mean)}, deviation ${fixed(std)}. x_0 has ${(100 * share).toFixed(0)} % of the precision, x_t has ${(100 * (1 - share)).toFixed(0)} %.`;
  if (s === 0) return `${first}\nAt s = 0 the bell of x_0 is a needle: the mean is x_0 whatever x_t is, and nothing is left to draw. The small variance is 0, the large one ${inWords(large)}.`;
  const ratio = `The small variance is ${(100 * small / large).toFixed(0)} % of the large one.`;
  const who = share < 0.3 ? "A small step. The bell of x_t is narrow and rules: the step stays near x_t, which is why so many steps are needed." : "A small step in t, but a long one for the noise: x_t does not rule alone.";
  if (t - s < 0.035) return `${first}\n${who} ${ratio}${small / large > 0.9 ? " As s → t they become one." : " Near the data they still differ: the choice matters here."}`;
  if (share > 0.9) return `${first}\nA long step. x_t is a poor witness of x_s, and x_0 decides; but only a guess of x_0 will be at hand. ${ratio}`;
  return `${first}\nA compromise: the product is narrower than either bell, and lies between them. ${ratio}`;
}

// ---- the picture ------------------------------------------------------------------------------------

const REACH = 4;
const [PRIOR, LIKELIHOOD, BOTH] = ["#d9822b", "#2f6db3", "#3d9970"];
const along = (x) => (Math.min(Math.max(x, -REACH), REACH) + REACH) / (2 * REACH);

/** Places of a bell of height 1 for the chart; a needle where it has no width. */
const bell = ([mean, std]) => {
  const width = Math.max(std, 0.012);
  const fine = Array.from({ length: 61 }, (_, i) => mean + width * (i - 30) * 0.12).filter((x) => Math.abs(x) <= REACH);
  const xs = [...Array.from({ length: 161 }, (_, i) => -REACH + (i * REACH) / 80), ...fine].sort((a, b) => a - b);
  return xs.map((x) => [along(x), Math.exp(-(((x - mean) / width) ** 2) / 2)]);
};

/** A beam with two weights, one for each bell, balanced on the mean. */
function makeLever() {
  const svg = make("svg:svg", { viewBox: "0 0 342 58", role: "img" });
  const [beam, left, right, foot] = [make("svg:path", { class: "beam" }), make("svg:circle", { fill: PRIOR }), make("svg:circle", { fill: LIKELIHOOD }), make("svg:path", { fill: BOTH })];
  svg.append(beam, left, right, foot);
  const place = (x) => 30 + along(x) * 306;
  const draw = ({ prior, likelihood, both, share }) => {
    const [a, b, m] = [prior[0], likelihood[0], both[0]].map(place);
    beam.setAttribute("d", `M${a.toFixed(1)} 24H${b.toFixed(1)}`);
    [[left, a, share], [right, b, 1 - share]].forEach(([disc, x, part]) => {
      disc.setAttribute("transform", `translate(${x.toFixed(1)} 24)`);
      disc.setAttribute("r", (3 + 17 * Math.sqrt(part)).toFixed(1));
    });
    foot.setAttribute("d", `M${m.toFixed(1)} 26l8 24h-16z`);
    svg.setAttribute("aria-label", `A beam balanced at ${fixed(both[0])}, with ${(100 * share).toFixed(0)} % of the weight at ${fixed(prior[0])} and the rest at ${fixed(likelihood[0])}`);
  };
  return { node: make("figure", {}, make("div", { class: "quiet" }, "The mean is where the two precisions balance"), svg), draw };
}

/** Two bars: the small and the large variance of a step back. */
function makeVariances() {
  const rows = ["small", "large"].map((name) => {
    const [bar, value] = [make("i"), make("output", { class: "value", "aria-live": "off" })];
    return { bar, value, node: make("div", { class: "size" }, make("span", {}, name), make("div", { class: "bar" }, bar), value) };
  });
  const draw = ({ small, large }) => [small, large].forEach((variance, k) => {
    rows[k].bar.style.width = `${((100 * variance) / large).toFixed(1)}%`;
    rows[k].value.textContent = inWords(variance);
  });
  return { node: make("div", {}, make("div", { class: "quiet" }, "Variance of a step back: the posterior's, and that of the step forward"), ...rows.map(({ node }) => node)), draw };
}

function render(host) {
  const { root, get, set, live } = makeWidget(host, "edu-posterior", "Where a pixel was, if its past and its future are known", { t: between(0.01, 0.98), s: between(0, 0.97), x_t: between(-3, 3), x_0: between(-3, 3) });
  const round = (x) => Math.round(100 * x) / 100;
  const times = [
    makeSlider("time t", 98, (k) => set({ t: (k + 1) / 100, s: round(Math.min(get().s, k / 100)) })),
    makeSlider("earlier time s", 98, (k) => set({ s: k / 100, t: round(Math.max(get().t, (k + 1) / 100)) })),
  ];
  const values = ["x_t", "x_0"].map((name) => makeSlider(name === "x_t" ? "noisy x_t" : "clean x_0", 61, (k) => set({ [name]: round((k - 30) / 10) })));
  const chart = makeChart("What is known of x at time s (bells of equal height)", [[0, "−4"], [0.5, "0"], [1, "4"]], [0, 1.08], []);
  const curves = [[PRIOR, "6 3"], [LIKELIHOOD, "2 3"], [BOTH, ""]].map(([colour, dash]) => chart.addCurve(colour, dash));
  const [lever, variances] = [makeLever(), makeVariances()];
  const side = make("div", {}, variances.node);
  root.append(...times.map(({ node }) => node), ...values.map(({ node }) => node),
    makeLegend([{ name: "x_0 says: q(x_s | x_0)", colour: PRIOR, dash: "6 3" }, { name: "x_t says: q(x_t | x_s)", colour: LIKELIHOOD, dash: "2 3" }, { name: "both: q(x_s | x_t, x_0)", colour: BOTH }]),
    make("div", { class: "below" }, make("div", {}, chart.node, lever.node), side));
  const words = makeWords(side);

  function draw() {
    const { t, s: wanted, x_t, x_0 } = get();
    const s = Math.min(wanted, round(t - 0.01)); // a link may ask for a later one
    const now = posterior(t, s, x_t, x_0);
    times[0].show(Math.round(100 * t) - 1, fixed(t), `t ${fixed(t)}`);
    times[1].show(Math.round(100 * s), fixed(s), `s ${fixed(s)}`);
    [["x_t", x_t], ["x_0", x_0]].forEach(([name, x], k) => values[k].show(Math.round(10 * x) + 30, fixed(x, 1), `${name} ${fixed(x, 1)}`));
    [now.prior, now.likelihood, now.both].forEach((each, k) => curves[k].draw(bell(each)));
    lever.draw(now);
    variances.draw(now);
    words.say(describe(t, s, x_t, x_0));
  }

  return live(draw, words.stop);
}

export default { render };
