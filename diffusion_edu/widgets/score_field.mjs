// The score field: arrows of a noisy mixture, and walkers that follow them by Langevin dynamics.
// Python: diffusion_edu/widgets/score_field.py

import { between, inWords, make, makeButton, makeCheckbox, makeCloud, makePlay, makeRadios, makeSlider, makeWidget, makeWords, mulberry32, nearest, normalPairs } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

export const LEVELS = 61; // positions of the noise slider
const [LOWEST, HIGHEST] = [0.05, 3];
const SIZES = Array.from({ length: 49 }, (_, i) => Number((0.02 * 250 ** (i / 48)).toPrecision(2)));
const REST = 3; // annealing: steps at each level

/** Noise level at a position of the slider, evenly spaced in log sigma. */
export const levelAt = (position) => LOWEST * (HIGHEST / LOWEST) ** (position / (LEVELS - 1));

/** The nearest position of the slider to a noise level. */
export const positionOf = (sigma) => Math.round((Math.log(sigma / LOWEST) / Math.log(HIGHEST / LOWEST)) * (LEVELS - 1));

/** log of weight times density of each lump at [x, y], after noise of level sigma was added. */
const logParts = ({ means, stds, weights }, sigma, [x, y]) => means.map(([a, b], k) => {
  const variance = stds[k] ** 2 + sigma ** 2;
  return Math.log(weights[k] / (2 * Math.PI * variance)) - ((x - a) ** 2 + (y - b) ** 2) / (2 * variance);
});

/** Density of the noisy mixture at a point. */
export const density = (lumps, sigma, point) => logParts(lumps, sigma, point).reduce((sum, each) => sum + Math.exp(each), 0);

/** Its score: each lump's pull, weighted by the chance that the point is that lump's. */
export function score(lumps, sigma, point) {
  const parts = logParts(lumps, sigma, point);
  const top = Math.max(...parts);
  const chances = parts.map((each) => Math.exp(each - top));
  const total = chances.reduce((sum, each) => sum + each, 0);
  return [0, 1].map((axis) => chances.reduce((sum, chance, k) =>
    sum + ((chance / total) * (lumps.means[k][axis] - point[axis])) / (lumps.stds[k] ** 2 + sigma ** 2), 0));
}

/** Langevin's eta: `size` times the variance of the thinnest lump at this noise level. */
export const stepOf = ({ stds }, sigma, size) => size * (Math.min(...stds) ** 2 + sigma ** 2);

/** One Langevin step of all points; z: a pair of normal numbers for each, or null for no noise. */
export function langevinStep(lumps, sigma, eta, points, z) {
  const root = Math.sqrt(eta);
  return points.map((point, i) => {
    const arrow = score(lumps, sigma, point);
    return point.map((value, axis) => {
      const next = value + (eta / 2) * arrow[axis] + (z === null ? 0 : root * z[i][axis]);
      return Math.min(Math.max(next, -1e6), 1e6); // a step that is too large flies away; keep numbers
    });
  });
}

/** Share of the points that are nearest to each centre. */
export function sharesOf(means, points) {
  const counts = means.map(() => 0);
  for (const [x, y] of points) {
    const gaps = means.map(([a, b]) => (x - a) ** 2 + (y - b) ** 2);
    counts[gaps.indexOf(Math.min(...gaps))] += 1;
  }
  return counts.map((count) => count / points.length);
}

/** One standard error of a lump's share among n independent points. */
export const errorOf = (weight, n) => Math.sqrt((weight * (1 - weight)) / n);

// ---- words ------------------------------------------------------------------------------------------

const percent = (share) => `${(100 * share).toFixed(0)} %`;

/** What is seen now, in sentences. */
export function describe({ sigma, size, noise, annealed, steps, shares, weights, n }) {
  const off = shares.map((share, k) => Math.abs(share - weights[k]) / errorOf(weights[k], n));
  const worst = off.indexOf(Math.max(...off));
  const letter = "ABCDE"[worst];
  const first = `Noise level ${sigma.toFixed(2)}, step size ${inWords(size, 2)}, ${annealed ? "annealed" : "one level"}, ${steps} ${steps === 1 ? "step" : "steps"} made.`;
  const verdict = off[worst] < 3
    ? "The shares agree with the weights within their errors."
    : `Lump ${letter} has ${percent(shares[worst])} of the walkers, its weight is ${percent(weights[worst])} ± ${(100 * errorOf(weights[worst], n)).toFixed(0)}: ${Math.round(off[worst])} standard errors off.`;
  let why = "";
  if (!noise) why = " Without noise every walker climbs to a summit and stays: no samples.";
  else if (size >= 4) why = " The step is 4 times the thinnest lump's variance or more: there Langevin flies apart.";
  else if (sigma > 0.7) why = " The lumps have melted together: walkers cross freely, but they sample a blurred density.";
  else if (off[worst] >= 3) why = " The valleys are deep: walkers cross one by one. The score is right, the weights stay wrong for long.";
  return `${first} ${verdict}${why}`;
}

// ---- the picture ------------------------------------------------------------------------------------

const REACH = 3; // the picture shows [-3, 3] in both directions
const SIDE = 420; // pixels of the canvas, before the screen's density
const [BLUE, ORANGE] = ["#2f6db3", "#d9822b"];

/** Draws density, arrows, walkers and letters on a canvas. */
function makePicture(lumps) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const canvas = make("canvas", { width: SIDE * scale, height: SIDE * scale, role: "img" });
  const pen = canvas.getContext("2d");
  const cells = 84;
  const at = ([x, y]) => [((x + REACH) / (2 * REACH)) * SIDE, ((REACH - y) / (2 * REACH)) * SIDE];
  const grid = Array.from({ length: 15 }, (_, i) => -REACH + ((i + 0.5) * 2 * REACH) / 15);
  let [cloud, drawnFor] = [null, null];

  function drawCloud(sigma) {
    const middle = (i) => -REACH + ((i + 0.5) * 2 * REACH) / cells;
    const values = Array.from({ length: cells * cells }, (_, k) => density(lumps, sigma, [middle(k % cells), -middle(Math.floor(k / cells))]));
    const top = Math.max(...values);
    cloud = makeCloud(cells, cells, (i, j) => 0.51 * Math.sqrt(values[j * cells + i] / top));
    drawnFor = sigma;
  }

  function drawArrow(from, [u, v], ink) {
    const length = Math.hypot(u, v);
    const reach = 13 * Math.tanh(Math.log1p(length) / 1.6);
    const [dx, dy] = [(u / length) * reach, (-v / length) * reach];
    const [x, y] = at(from);
    pen.beginPath();
    pen.moveTo(x - dx / 2, y - dy / 2);
    pen.lineTo(x + dx / 2, y + dy / 2);
    pen.lineTo(x + dx / 2 - 0.35 * dx + 0.2 * dy, y + dy / 2 - 0.35 * dy - 0.2 * dx);
    pen.moveTo(x + dx / 2, y + dy / 2);
    pen.lineTo(x + dx / 2 - 0.35 * dx - 0.2 * dy, y + dy / 2 - 0.35 * dy + 0.2 * dx);
    pen.strokeStyle = ink;
    pen.stroke();
  }

  function draw(sigma, walkers) {
    const ink = getComputedStyle(canvas).color;
    if (drawnFor !== sigma) drawCloud(sigma);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, SIDE, SIDE);
    pen.drawImage(cloud, 0, 0, SIDE, SIDE);
    pen.globalAlpha = 0.55;
    pen.lineWidth = 1.2;
    for (const x of grid) for (const y of grid) drawArrow([x, y], score(lumps, sigma, [x, y]), ink);
    pen.globalAlpha = 0.85;
    pen.fillStyle = ORANGE;
    for (const walker of walkers) {
      const [x, y] = at(walker);
      pen.fillRect(x - 1.7, y - 1.7, 3.4, 3.4);
    }
    pen.globalAlpha = 1;
    pen.font = "600 17px system-ui, sans-serif";
    [pen.textAlign, pen.textBaseline, pen.fillStyle] = ["center", "middle", ink];
    lumps.means.forEach((mean, k) => pen.fillText("ABCDE"[k], ...at(mean)));
  }
  return { canvas, draw };
}

/** A row for each lump: its share of the walkers as a bar, its weight as a mark with one standard error. */
function makeBars(lumps, n) {
  const rows = lumps.weights.map((weight, k) => {
    const bar = make("i", { style: `background: ${ORANGE}` });
    const error = errorOf(weight, n);
    const mark = make("b", { style: `left: ${100 * (weight - error)}%; width: ${200 * error}%; background: ${BLUE}` });
    const value = make("output", { class: "value", "aria-live": "off" });
    const row = make("div", { class: "share" }, make("strong", {}, "ABCDE"[k]), make("div", { class: "bar" }, bar, mark), value);
    const show = (share) => {
      bar.style.width = `${100 * share}%`;
      value.textContent = `${percent(share)} (${(100 * weight).toFixed(0)} ± ${(100 * error).toFixed(0)})`;
    };
    return { row, show };
  });
  const head = make("div", { class: "quiet" }, "Share of the walkers (orange), and in brackets the weight ± one standard error (blue), in %");
  return { node: make("div", {}, head, ...rows.map(({ row }) => row)), show: (shares) => shares.forEach((share, k) => rows[k].show(share)) };
}

function render(host) {
  const { model } = host;
  const lumps = Object.fromEntries(["means", "stds", "weights"].map((name) => [name, model.get(name)]));
  const start = model.get("start");
  const { root, get, set, draw, live } = makeWidget(host, "edu-score", "Walkers on the arrows of a score", {
    sigma: between(LOWEST, HIGHEST), size: between(SIZES[0], SIZES.at(-1)), noise: [false, true], annealed: [false, true],
  });
  let [walkers, made, random] = [model.get("walkers"), model.get("steps"), mulberry32(model.get("seed"))];

  const noise = makeSlider("noise level σ", LEVELS, (position) => set({ sigma: levelAt(position) }));
  const size = makeSlider("step size", SIZES.length, (position) => set({ size: SIZES[position] }));

  const play = makePlay(advance, { every: 60, through: true });
  const once = makeButton("One step", () => { play.stop(); advance(); });
  const again = makeButton("Start again", restart);
  const shaken = makeCheckbox("noise", (noise) => set({ noise }));
  const modes = makeRadios("noise levels", [[false, "one level"], [true, "annealed"]], (annealed) => { set({ annealed }); if (annealed) restart(); });

  function put(points, steps) {
    [walkers, made, random] = [points, steps, mulberry32(model.get("seed"))];
  }
  root.addEventListener("reset", () => put(model.get("walkers"), model.get("steps")));
  function restart() {
    play.stop();
    put(start, 0);
    if (get().annealed) set({ sigma: HIGHEST });
    draw();
  }
  function advance() {
    const { sigma, size, noise, annealed } = get();
    const z = noise ? normalPairs(random, walkers.length) : null;
    walkers = langevinStep(lumps, sigma, stepOf(lumps, sigma, size), walkers, z);
    made += 1;
    draw();
    if (!annealed || made % REST !== 0) return true;
    if (positionOf(sigma) === 0) return false;
    set({ sigma: levelAt(positionOf(sigma) - 1) });
    return true;
  }

  const picture = makePicture(lumps);
  const bars = makeBars(lumps, start.length);
  const side = make("div", {}, bars.node);
  root.append(noise.node, size.node,
    make("div", { class: "drive" }, play.node, once, again, shaken.node, modes.node),
    make("div", { class: "below" }, picture.canvas, side));
  const words = makeWords(side);

  function drawNow() {
    const { sigma, size: step, noise: shake, annealed } = get();
    const shares = sharesOf(lumps.means, walkers);
    noise.show(positionOf(sigma), sigma.toFixed(2), `noise level ${sigma.toFixed(2)}`);
    size.show(nearest(SIZES, step), `${inWords(step, 2)} × var`, `step ${inWords(step, 2)} times the thinnest lump's variance`);
    shaken.show(shake);
    modes.show(annealed);
    picture.draw(sigma, walkers);
    picture.canvas.setAttribute("aria-label", `Arrows of the score at noise level ${sigma.toFixed(2)} and ${walkers.length} walkers after ${made} steps`);
    bars.show(shares);
    words.say(describe({ sigma, size: step, noise: shake, annealed, steps: made, shares, weights: lumps.weights, n: start.length }));
  }

  // The canvas takes its ink from the page: it has some once it is shown, and another when the theme changes, here or in JupyterLab.
  const theme = new MutationObserver(draw);
  for (const node of [document.documentElement, document.body]) theme.observe(node, { attributes: true, attributeFilter: ["data-theme", "data-jp-theme-name"] });
  const shown = new ResizeObserver(draw);
  shown.observe(picture.canvas);
  return live(drawNow, words.stop, play.stop, () => theme.disconnect(), () => shown.disconnect());
}

export default { render };
