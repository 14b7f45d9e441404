// A laboratory of guidance: one noise, ten wishes, and the trained network itself, asked by the reader.
// Python: diffusion_edu/widgets/guidance_lab.py

import { make, makeButton, makeRadios, makeSlider, makeWidget, makeWords, nearest, typeset } from "./common.mjs";
import { makeSchedule, normals, timeGrid, toUint8 } from "./sampling.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

const ALL = 10; // the choice of all ten digits
const BUDGETS = [4, 6, 8, 10, 15, 20, 30, 50];

/** A DDIM run, rebuilt from its first state and its estimates x0_hat, one for each step: [{ t, x_t, x0_hat }], the end last. */
export function ddimStates(schedule, x, estimates) {
  const ts = timeGrid(schedule, estimates.length);
  const states = estimates.map((x0_hat, k) => {
    const [t, s, x_t] = [ts[k], ts[k + 1], x];
    const along = schedule.sigma(s) / schedule.sigma(t);
    const rest = schedule.alpha(s) - along * schedule.alpha(t);
    x = x_t.map((value, i) => along * value + rest * x0_hat[i]);
    return { t, x_t, x0_hat };
  });
  return [...states, { t: 0, x_t: x, x0_hat: x }];
}

/** Where the frame of a seed, weight, step and digit stands in the sheet; at w = 0 there is one for all digits. */
export function placeOf(weights, steps, seedIndex, wIndex, step, digit) {
  const count = (w) => (w === 0 ? 1 : 10);
  const before = (list) => list.reduce((sum, w) => sum + steps * count(w), 0);
  const many = count(weights[wIndex]);
  return seedIndex * before(weights) + before(weights.slice(0, wIndex)) + step * many + (many === 1 ? 0 : digit);
}

/** Root mean square difference of two pictures of bytes, in units in which black is -1 and white 1. */
export const difference = (a, b) => Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length) / 127.5;

// ---- words ------------------------------------------------------------------------------------------

const SAMPLERS = [["ddim", "DDIM"], ["ancestral", "ancestral"], ["dpm-solver++", "DPM-Solver++"], ["edm", "Heun"]];

/** What is seen, in sentences; run: null, or { of, t, apart, live }, apart: how far x0_hat is from the end, null while it runs. */
export function describe({ w, sampler, evaluations, seed, step }, run) {
  const setting = `${SAMPLERS.find(([value]) => value === sampler)[1]}, ${evaluations} evaluations, noise ${seed}`;
  if (!run) return `w = ${w}, ${setting}: this has not been drawn yet. Let the network draw it: press the button.`;
  const weight = w === 0
    ? "w = 0: the wish is not heard. From one noise comes one picture, whatever is asked for."
    : w === 1
      ? "w = 1: the network answers the wish as it was trained to, with one question a step."
      : `w = ${w}: at each step the estimate goes ${w} times the way from “any digit” to the wish.`;
  const state = step >= run.of
    ? "The finished picture: x_t and x̂_0 are one."
    : `At t = ${run.t.toFixed(2)} the left picture is what the sampler holds, the right one what the network makes of it${run.apart === null ? "" : `, ${run.apart.toFixed(2)} from the finished picture (root mean square)`}.`;
  return `${weight}\nStep ${Math.min(step, run.of)} of ${run.of} (${setting}${run.live ? "" : ", drawn beforehand"}). ${state}`;
}

/** "12.3 of 18.7 MB". */
export const megabytes = (loaded, total) => `${(loaded / 1e6).toFixed(1)}${total ? ` of ${(total / 1e6).toFixed(1)}` : ""} MB`;

/** How long a step took: the median of the steps' milliseconds. */
export function pace(times, count, guided) {
  const sorted = [...times].sort((a, b) => a - b);
  const many = count > 1 ? `${count} pictures` : "one picture";
  return `Drawn by the network just now: ${sorted[sorted.length >> 1].toFixed(0)} ms a step for ${many}${guided ? ", two questions each" : ""}.`;
}

// ---- pictures ---------------------------------------------------------------------------------------

/** Every frame of the sheet as numbers in [-1, 1]. */
async function readSheet(base64, size) {
  const sheet = new Image();
  sheet.src = `data:image/png;base64,${base64}`;
  await sheet.decode();
  const canvas = make("canvas", { width: sheet.width, height: sheet.height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(sheet, 0, 0);
  const columns = sheet.width / size;
  return (place) => {
    const { data } = pen.getImageData((place % columns) * size, Math.floor(place / columns) * size, size, size);
    return Float64Array.from({ length: size * size }, (_, i) => data[4 * i] / 127.5 - 1);
  };
}

/** Two rows of pictures, x_t above x0_hat; draw(x_t, x0_hat) takes bytes. */
function makeFilm(digits, size) {
  const film = make("div", { class: digits.length > 1 ? "film" : "film one", style: `--columns: ${digits.length}`, role: "img" });
  film.setAttribute("aria-label", `The state x_t and the network's estimate of the finished picture, for ${digits.length > 1 ? "the digits 0 to 9" : `the digit ${digits[0]}`}`);
  if (digits.length > 1) film.append(make("i"), ...digits.map((digit) => make("b", {}, String(digit))));
  const rows = ["x_t", "x̂_0"].map((name) => {
    const canvases = digits.map(() => make("canvas", { width: size, height: size }));
    film.append(make("i", {}, ...typeset(name)), ...canvases);
    return canvases.map((canvas) => canvas.getContext("2d"));
  });
  return {
    node: film,
    draw: (...images) => images.forEach((bytes, row) => rows[row].forEach((pen, n) => {
      const picture = new ImageData(size, size);
      for (let i = 0; i < size * size; i++) picture.data.fill(bytes[n * size * size + i], 4 * i, 4 * i + 3).fill(255, 4 * i + 3, 4 * i + 4);
      pen.putImageData(picture, 0, 0);
    })),
  };
}

// ---- the widget -------------------------------------------------------------------------------------

async function render(host) {
  const { model } = host;
  const size = 28;
  const [weights, seeds, frames] = ["weights", "frame_seeds", "frame_evaluations"].map((name) => model.get(name));
  const schedule = makeSchedule(model.get("schedule"));
  const { root, get, set, draw, live } = makeWidget(host, "edu-lab", "Guidance, sampled live", ["digit", "w_index", "sampler", "evaluations", "seed", "step"]);
  const frame = await readSheet(model.get("sprites"), size);

  const runs = new Map(); // settings -> { states: [{ t, images: [x_t, x0_hat] }], of, live }
  const keyOf = ({ step, ...settings }) => JSON.stringify(Object.values(settings));
  const wishes = ({ digit }) => (digit === ALL ? [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] : [digit]);
  let asking = null; // { id, key, times } of the run on its way
  let [awake, shown, film, timer, count] = [false, null, null, null, 0];

  /** The run that was drawn beforehand for these settings, if there is one. */
  function beforehand(state) {
    const place = seeds.indexOf(state.seed);
    if (place < 0 || state.sampler !== "ddim" || state.evaluations !== frames) return null;
    const x = normals(state.seed, size * size);
    const each = wishes(state).map((digit) => ddimStates(schedule, x,
      Array.from({ length: frames }, (_, step) => frame(placeOf(weights, frames, place, state.w_index, step, digit)))));
    const together = (k, name) => Uint8Array.from(each.flatMap((states) => [...toUint8(states[k][name])]));
    const states = each[0].map(({ t }, k) => ({ t, images: [together(k, "x_t"), together(k, "x0_hat")] }));
    return { states, of: frames, live: false };
  }

  function find(state) {
    const key = keyOf(state);
    if (!runs.has(key)) {
      const run = beforehand(state);
      if (run) runs.set(key, run);
    }
    return runs.get(key) ?? null;
  }

  function ask() {
    clearTimeout(timer);
    const state = get();
    asking = { id: `lab-${++count}`, key: keyOf(state), times: [], run: { states: [], of: 0, live: true } };
    status.textContent = awake ? "The network draws …" : "Loading the network …";
    main.textContent = "Stop";
    model.send({ op: "sample", id: asking.id, y: wishes(state), w: weights[state.w_index], sampler: state.sampler, evaluations: state.evaluations, seed: state.seed });
    draw();
  }

  function stop(text) {
    if (asking) model.send({ op: "cancel", id: asking.id });
    asking = null;
    main.textContent = "Sample with the real network";
    status.textContent = text;
    draw();
  }

  function hear(content, buffers) {
    if (!asking || content.id !== asking.id) return;
    const { run, times, key } = asking;
    if (content.kind === "progress") status.textContent = `Loading the network, once: ${megabytes(content.loaded, content.total)}`;
    if (content.kind === "error") stop(content.message);
    if (content.kind === "step") {
      run.of = content.of;
      run.states.push({ t: content.t, images: buffers.map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)) });
      if (content.ms !== undefined) times.push(content.ms);
      draw();
    }
    if (content.kind === "done") {
      const { digit, w_index } = get();
      if (runs.size > 60) runs.clear();
      runs.set(key, run);
      awake = true;
      asking = null; // nothing to cancel
      set({ step: run.of });
      stop(pace(times, wishes({ digit }).length, weights[w_index] !== 1));
    }
  }

  const main = makeButton("Sample with the real network", () => (asking ? stop("Stopped.") : ask()));
  const other = makeButton("Another noise", () => {
    const { seed } = get();
    set({ seed: awake ? seed + 1 : seeds[(seeds.indexOf(seed) + 1) % seeds.length] });
  });
  const status = make("p", { class: "quiet status", role: "status" }, "The network is loaded at the first press: about 8 MB, once.");
  const digits = makeRadios("asked for", [...Array.from({ length: 10 }, (_, c) => [c, String(c)]), [ALL, "all ten"]], (digit) => set({ digit }));
  const samplers = makeRadios("sampler", SAMPLERS, (sampler) => set({ sampler }));
  const weight = makeSlider("guidance weight w", weights.length, (w_index) => set({ w_index }));
  const budget = makeSlider("evaluations", BUDGETS.length, (position) => set({ evaluations: BUDGETS[position] }));
  const time = makeSlider("step", frames + 1, (step) => set({ step }));
  const picture = make("div");
  root.append(digits.node, weight.node, make("div", { class: "drive" }, main, other), status, time.node, picture, samplers.node, budget.node);
  const words = makeWords(root);

  function showRun(run, step) {
    const many = run.states[0].images[0].length / (size * size);
    const title = many > 1 ? "all" : get().digit;
    if (film?.title !== title) {
      film = { title, ...makeFilm(wishes(get()), size) };
      picture.replaceChildren(film.node);
    }
    film.draw(...run.states[step].images);
  }

  function drawNow() {
    const state = get();
    if (asking && asking.key !== keyOf(state)) {
      asking = null; // the settings moved on; what they ask for now cancels it
      ask();
    }
    const going = asking?.run.states.length ? asking.run : null;
    const run = going ?? find(state);
    if (!run && awake && !asking) {
      clearTimeout(timer);
      timer = setTimeout(ask, 150); // when the reader's hand rests
    }
    const w = weights[state.w_index];
    digits.show(state.digit);
    samplers.show(state.sampler);
    weight.show(state.w_index, String(w), `guidance weight ${w}`);
    budget.show(nearest(BUDGETS, state.evaluations), String(state.evaluations), `${state.evaluations} evaluations`);
    picture.classList.toggle("stale", !run);
    if (run) shown = run;
    const last = shown ? shown.states.length - 1 : 0;
    const step = going ? last : Math.min(state.step, last);
    time.node.querySelector("input").max = shown?.of ?? frames;
    time.show(step, shown ? `t = ${shown.states[step].t.toFixed(2)}` : "", `step ${step} of ${shown?.of ?? frames}`);
    if (run) showRun(run, step);
    const apart = going ? null : run && difference(run.states[step].images[1], run.states.at(-1).images[1]);
    words.say(describe({ ...state, w, step }, run && { of: run.of, t: run.states[step].t, apart, live: run.live }));
  }

  model.on("msg:custom", hear);
  return live(drawNow, words.stop, () => {
    clearTimeout(timer);
    model.off("msg:custom", hear);
  });
}

export default { render };
