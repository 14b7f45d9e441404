// A drawing of the reader's own, noised and made a digit by the network, or erased in part and filled in.
// Python: diffusion_edu/widgets/draw_your_own.py. The mathematics here agree with Python's to 1e-9 (tests/js).

import { between, bytesOf, make, makeButton, makeChart, makeLegend, makeRadios, makeSlider, makeWidget, makeWords, nearest, unique } from "./common.mjs";
import { areStrokes, CELLS, ERASER, FRAME, makeCanvas, makePad, maskOf, measure, MIDDLE, fit, paint, PEN, rasterise, SIZE } from "./pad.mjs";
import { makeSchedule, normals } from "./sampling.mjs";

// ---- noise and distances ------------------------------------------------------------------------------

const SCHEDULE = makeSchedule({ name: "Cosine", s: 0.008 }); // the network's

/** alpha and sigma at time t. */
export const shares = (t) => ({ alpha: SCHEDULE.alpha(t), sigma: SCHEDULE.sigma(t) });

/** alpha x0 + sigma eps at time t. */
export function noised(x0, t, eps) {
  const { alpha, sigma } = shares(t);
  return x0.map((value, i) => alpha * value + sigma * eps[i]);
}

/** Root mean square difference of a pixel. */
export const distance = (a, b) => Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length);

/** Mean of a list. */
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Mean distance between two different ones of the images. */
export const spread = (images) => mean(images.flatMap((a, i) => images.slice(i + 1).map((b) => distance(a, b))));

/** Mean jump between neighbouring pixels of which one is kept and one is not. */
export function seam(image, mask) {
  const jumps = [];
  for (let k = 0; k < CELLS; k++)
    for (const [step, there] of [[1, k % SIZE < SIZE - 1], [SIZE, k + SIZE < CELLS]])
      if (there && mask[k] !== mask[k + step]) jumps.push(Math.abs(image[k] - image[k + step]));
  return jumps.length ? mean(jumps) : 0;
}

// ---- words --------------------------------------------------------------------------------------------

export const MODES = ["noise and denoise", "erase and fill in"];
export const RESAMPLES = [1, 5];
const NO_CLASS = 10;

/** What is drawn, where it stands for MNIST. */
export function describePlace(name, found) {
  if (!found) return "The canvas is empty.";
  const off = Math.hypot(found.column - MIDDLE, found.row - MIDDLE);
  const wrong = [];
  if (found.long > FRAME + 3 || found.long < FRAME - 5) wrong.push(`${found.long.toFixed(0)} cells long (MNIST's digits: 20)`);
  if (off > 2) wrong.push(`${off.toFixed(0)} cells off the centre`);
  return wrong.length ? `Your drawing is ${wrong.join(" and ")}. The network has seen no such digit: press “Fit” first.` : `${name}.`;
}

/** What noising and denoising did. facts: { far, apart } of the results, or null; near: distance to the nearest real digit, if known. */
export function describeEdit(L, facts, near, floor) {
  const { alpha, sigma } = shares(L);
  const start = `Noised to L = ${L.toFixed(2)}, a pixel keeps ${alpha.toFixed(2)} of itself and gets noise of deviation ${sigma.toFixed(2)}.`;
  if (!facts) return `${start} Nothing has been drawn from there yet: press “Denoise”.`;
  const { far, apart } = facts;
  const what = far < 0.2 ? "The drawing comes back almost as it was" : far < 0.4 ? "The strokes stay where they were, and change their shape" : far < 0.65 ? "A rough likeness is left" : "The drawing is forgotten";
  const text = `${start} ${what}: the results differ from it by ${far.toFixed(2)} a pixel (root mean square; black is −1, white 1), from each other by ${apart.toFixed(2)}.`;
  if (near === null) return text;
  const real = near < 1.1 * floor ? "as near as real digits are to each other" : near < 1.25 * floor ? "a little further than between real digits" : "further than between real digits";
  return `${text} The nearest of 60 000 real digits is ${near.toFixed(2)} away, ${real} (${floor.toFixed(2)}).`;
}

/** What filling in did. facts: { far, apart, jump, was } in and at the erased part, or null. */
export function describeFill(share, facts) {
  if (share === 0) return "Nothing is erased: draw with the eraser over a part of the digit.";
  const start = `${(100 * share).toFixed(0)} % of the ink is erased.`;
  if (!facts) return `${start} Press “Fill in”: the network sees what is left, and invents the rest.`;
  const { far, apart, jump, was } = facts;
  const join = jump < 1.15 * was + 0.02 ? "as smooth as the drawing" : jump < 1.5 * was + 0.02 ? "not quite as smooth as the drawing" : "rougher than the drawing";
  return `${start} The rest is kept to the last pixel. Where it was erased, the fillings differ from your drawing by ${far.toFixed(2)} a pixel and from each other by ${apart.toFixed(2)}. At the seam they are ${join}: neighbouring pixels jump by ${jump.toFixed(2)}, in the drawing by ${was.toFixed(2)}.`;
}

// ---- the widget ---------------------------------------------------------------------------------------

const [DRAWN, STEPS, LEVELS] = [4, 20, 16];
const WEIGHTS = [1, 1.5, 2, 3, 4, 6];
const CURVES = [{ name: "from the drawing", colour: "#2f6db3" }, { name: "from the nearest real digit", colour: "#d9822b" }, { name: "a real digit from the nearest other one", colour: "#7a7f87", dash: "5 4" }];

function render(host) {
  const { model } = host;
  const [times, examples, floor] = ["times", "examples", "floor"].map((name) => model.get(name));
  const packed = bytesOf(model.get("pixels"));
  const picture = (index) => Float32Array.from({ length: CELLS }, (_, k) => {
    const byte = packed[(index * CELLS + k) >> 1];
    return ((k % 2 ? byte & 15 : byte >> 4) * 2) / (LEVELS - 1) - 1;
  });
  const four = (group) => [0, 1, 2, 3].map((number) => picture(group * DRAWN + number));
  const { root, draw, get, set, live } = makeWidget(host, "edu-draw", "Draw your own", {
    mode: [0, 1], place: [...times.keys()], label: [...Array(NO_CLASS + 1).keys()], w: WEIGHTS, repeats: [0, 1],
    seed: (seed) => Number.isInteger(seed) && between(0, 2 ** 31)(seed), strokes: areStrokes, erased: areStrokes,
  });
  root.addEventListener("reset", () => running && ask());

  // The state, with the stroke that is being drawn; what is known of it; what the network is doing.
  let [pending, running, asked] = [null, null, 0];
  const drawn = new Map(); // settings -> { L: four images }
  const list = () => (get().mode ? "erased" : "strokes");
  const state = () => {
    const now = get();
    return pending ? { ...now, [list()]: [...now[list()], pending] } : now;
  };
  const settings = ({ mode, label, w, repeats, seed, strokes, erased }) =>
    JSON.stringify([mode, label, label === NO_CLASS ? 1 : w, seed, strokes, ...(mode ? [repeats, erased] : [])]);
  const stage = ({ mode, place }) => (mode ? 0 : times[place]);
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const exampleOf = ({ strokes }) => examples.findIndex((each) => same(each.strokes, strokes));
  function results(now) {
    const found = drawn.get(settings(now))?.[stage(now)];
    const number = exampleOf(now);
    if (found || number < 0 || now.label !== NO_CLASS || now.seed !== 0) return found ?? null;
    if (!now.mode) return four(number * times.length + now.place);
    return same(examples[number].erased, now.erased) ? four(examples.length * times.length + number * RESAMPLES.length + now.repeats) : null;
  }
  const noises = new Map();
  const noise = (seed) => noises.get(seed) ?? noises.set(seed, normals(seed, CELLS)).get(seed);

  // Asking the network, and hearing from it.
  function ask() {
    if (running) {
      model.send({ id: running.id, op: "cancel" });
      running = null;
      return say("Stopped.");
    }
    const now = state();
    const id = `draw-${++asked}-${unique()}`;
    const request = { id, op: "sample", y: Array(DRAWN).fill(now.label), w: now.label === NO_CLASS ? 1 : now.w, sampler: "ancestral", seed: seeds(now) };
    const image = [...rasterise(now.strokes)];
    const repeats = RESAMPLES[now.repeats];
    running = { id, key: settings(now), L: stage(now), x: null };
    model.send(now.mode
      ? { ...request, evaluations: STEPS * repeats, resamples: repeats, keep: { image, mask: [...maskOf(now.erased)] } }
      : { ...request, evaluations: STEPS, start: { image, t: times[now.place] } });
    say("Starting the network. The first time it has to be loaded.");
  }
  const seeds = ({ seed }) => [0, 1, 2, 3].map((number) => seed + number);
  const split = (view) => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    return [0, 1, 2, 3].map((number) => Float32Array.from(bytes.subarray(number * CELLS, (number + 1) * CELLS), (byte) => byte / 127.5 - 1));
  };
  function hear(content, buffers) {
    if (content.id !== running?.id) return;
    const { kind, step, of } = content;
    if (kind === "progress") return say(`Loading the network: ${(content.loaded / 1e6).toFixed(1)}${content.total ? ` of ${(content.total / 1e6).toFixed(1)}` : ""} MB.`);
    if (kind === "step") {
      running.x = buffers.map(split);
      if (step === of) drawn.set(running.key, { ...drawn.get(running.key), [running.L]: running.x[1] });
      say(`Step ${step} of ${of}, t = ${content.t.toFixed(2)}.`);
    } else {
      running = null;
      say(kind === "error" ? content.message : "");
    }
  }
  model.on("msg:custom", hear);

  // The elements.
  const spoken = make("div", { class: "heard", "aria-live": "polite" });
  const status = make("p", { class: "quiet status", role: "status" });
  function say(text) {
    status.textContent = text;
    draw();
  }
  const undo = () => set({ [list()]: get()[list()].slice(0, -1) });
  const pad = makePad((stroke) => { pending = [...stroke]; draw(); }, (stroke) => { pending = null; set({ [list()]: [...get()[list()], stroke] }); draw(); }, undo, (text) => (spoken.textContent = text));
  const mode = makeRadios("what to do", MODES.map((text, index) => [index, text]), (mode) => set({ mode }));
  const fitted = makeButton("Fit", () => set({ strokes: fit(get().strokes) }));
  const tools = make("div", { class: "buttons" }, makeButton("Undo", undo), makeButton("Clear", () => set({ [list()]: [] })), fitted);
  const load = ({ strokes, erased }) => () => set({ strokes, erased });
  const starts = make("div", { class: "buttons starts" }, make("span", {}, "begin with"), ...examples.map((each) => makeButton(each.name, load(each))));
  const slider = makeSlider("strength", times.length, (place) => set({ place }));
  const weight = makeSlider("guidance w", WEIGHTS.length, (index) => set({ w: WEIGHTS[index] }));
  const repeats = makeRadios("visits of each step", RESAMPLES.map((r, index) => [index, String(r)]), (repeats) => set({ repeats }));
  const pick = make("select", { id: unique() }, ...[NO_CLASS, ...Array(10).keys()].map((label) => make("option", { value: label }, label === NO_CLASS ? "any digit" : `a ${label}`)));
  pick.addEventListener("change", () => set({ label: Number(pick.value) }));
  const go = makeButton("Denoise", ask);
  go.classList.add("main");
  const fresh = makeButton("New noise", () => set({ seed: (get().seed + DRAWN) % 2 ** 31 }));
  const rows = [0, 1].map(() => {
    const canvases = [0, 1, 2, 3].map(() => makeCanvas({ role: "img" }));
    const title = make("div", { class: "quiet" });
    return { canvases, title, node: make("div", {}, make("div", { class: "four" }, ...canvases), title) };
  });
  const ends = [[0, `L = ${times[0].toFixed(2)}`], [1, `L = ${times.at(-1).toFixed(2)}`]];
  const chart = makeChart("how far the results are (rms of a pixel)", ends, [0, 1], [[0, "0"], [0.5, "0.5"], [1, "1"]]);
  const curves = CURVES.map(({ colour, dash }) => chart.addCurve(colour, dash));
  const dot = chart.addDot();
  const plot = make("div", {}, chart.node, makeLegend(CURVES));
  const text = make("div");
  const below = make("div", { class: "below" }, text, plot);
  root.append(mode.node, starts, make("div", { class: "desk" },
    make("div", {}, pad.node, tools),
    make("div", {}, slider.node, repeats.node, make("div", { class: "control pick" }, make("label", { for: pick.id }, "make it"), pick), weight.node,
      make("div", { class: "buttons" }, go, fresh), ...rows.map(({ node }) => node), status)),
    below, spoken);
  const words = makeWords(text);
  const at = (L) => (L - times[0]) / (times.at(-1) - times[0]);

  function show(row, title, images, spoken, mask) {
    row.title.textContent = title;
    row.canvases.forEach((canvas, i) => {
      canvas.classList.toggle("empty", !images);
      canvas.setAttribute("aria-label", `${spoken} ${i + 1}`);
      paint(canvas, images?.[i] ?? new Float32Array(CELLS).fill(-1), mask);
    });
  }

  function drawNow() {
    const now = state();
    const [filling, L, number] = [now.mode === 1, times[now.place], exampleOf(now)];
    const [x0, mask, found] = [rasterise(now.strokes), filling ? maskOf(now.erased) : null, results(now)];
    mode.show(now.mode);
    slider.show(now.place, `L = ${L.toFixed(2)}`, `noised to L ${L.toFixed(2)}, ${shares(L).alpha.toFixed(2)} of the drawing left`);
    weight.show(nearest(WEIGHTS, now.w), now.w.toFixed(1), `guidance weight ${now.w}`);
    repeats.show(now.repeats);
    pick.value = now.label;
    slider.node.hidden = plot.hidden = filling;
    below.classList.toggle("alone", filling);
    repeats.node.hidden = !filling;
    weight.node.hidden = now.label === NO_CLASS;
    fitted.hidden = filling;
    go.textContent = running ? "Stop" : filling ? "Fill in" : "Denoise";
    pad.size(filling ? ERASER : PEN);
    paint(pad.canvas, x0, mask);
    if (running?.x) {
      show(rows[0], "what the network is shown", running.x[0], "state");
      show(rows[1], "what it believes", running.x[1], "belief");
    } else {
      const starts = filling ? Array(DRAWN).fill(x0) : seeds(now).map((seed) => noised(x0, L, noise(seed)));
      show(rows[0], filling ? "what is kept" : `four noises, L = ${L.toFixed(2)}`, starts, filling ? "kept part" : "noised drawing", mask);
      show(rows[1], found ? (filling ? "filled in" : "drawn back") : `not drawn yet: press “${go.textContent}”`, found, filling ? "filling" : "result");
    }
    const name = number < 0 ? "Your drawing" : `${examples[number].name[0].toUpperCase()}${examples[number].name.slice(1)}`;
    const place = describePlace(name, measure(now.strokes));
    if (filling) words.say(`${place} ${describeFill(shareOf(x0, mask), found && factsOfFill(x0, mask, found))}`);
    else {
      const facts = found && { far: mean(found.map((image) => distance(x0, image))), apart: spread(found) };
      const known = number >= 0 && now.label === NO_CLASS;
      words.say(`${place} ${describeEdit(L, facts, known ? examples[number].nearest[now.place] : null, floor)}`);
      const own = Object.entries(drawn.get(settings(now)) ?? {}).map(([L, images]) => [at(L), mean(images.map((image) => distance(x0, image)))]).sort(([a], [b]) => a - b);
      const measured = (name) => examples[number][name].map((value, place) => [at(times[place]), value]);
      curves[0].draw(known ? measured("distance") : [...own, ...own.slice(-1), ...(own.length ? [] : [[0, -1]])]);
      curves[1].draw(known ? measured("nearest") : [[0, -1]]);
      curves[2].draw([[0, floor], [1, floor]]);
      chart.moveCursor(at(L));
      dot(at(L), facts?.far ?? 0, facts ? CURVES[0].colour : "transparent");
    }
  }

  return live(drawNow, words.stop, () => {
    model.off("msg:custom", hear);
    if (running) model.send({ id: running.id, op: "cancel" });
  });
}

/** Share of the ink that lies where nothing is kept. */
export function shareOf(x0, mask) {
  const ink = mean([...x0].map((value) => value + 1));
  return ink ? mean([...x0].map((value, k) => (value + 1) * (1 - mask[k]))) / ink : 0;
}

/** What `describeFill` tells of fillings. */
export function factsOfFill(x0, mask, images) {
  const lost = [...mask.keys()].filter((k) => !mask[k]);
  const parts = images.map((image) => lost.map((k) => image[k]));
  const was = lost.map((k) => x0[k]);
  return { far: mean(parts.map((part) => distance(part, was))), apart: spread(parts), jump: mean(images.map((image) => seam(image, mask))), was: seam(x0, mask) };
}

export default { render };
