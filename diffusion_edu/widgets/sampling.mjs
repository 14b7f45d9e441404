// Sampling with a denoising network, in a page: what diffusion_edu's noise, schedules, process, guidance and samplers do
// in Python, for the requests of diffusion_edu/widgets/live.py. The network is any function
//     network(x, t, y) -> Promise of its raw output,  x: Float32Array (N C H W), t: Float32Array (N), y: number[] (N).
// Arithmetic is in float64; only the network sees float32. tests/test_sampling_in_a_page.py holds both languages together.

import { mulberry32, normalPairs } from "./common.mjs";

// ---- noise: diffusion_edu/noise.py ------------------------------------------------------------------------------

/** Numbers `start` ... of a stream of standard normals; start and count are even. The stream counts: any place can be entered. */
export const normals = (seed, count, start = 0) =>
  Float64Array.from(normalPairs(mulberry32(seed + Math.imul(start, 0x6d2b79f5)), count / 2).flat());

/** Noise for a batch of images of `size` numbers: one stream for each seed, each draw goes on where the last one ended. */
export function sharedNoise(seeds, size) {
  let drawn = 0;
  return () => {
    const rows = new Map(seeds.map((seed) => [seed, null]));
    for (const seed of rows.keys()) rows.set(seed, normals(seed, size, drawn));
    drawn += size;
    const batch = new Float64Array(seeds.length * size);
    seeds.forEach((seed, row) => batch.set(rows.get(seed), row * size));
    return batch;
  };
}

// ---- schedules and grids: diffusion_edu/schedules.py ------------------------------------------------------------

const SCHEDULES = {
  Cosine({ s = 0.008 }) {
    const [rate, u0] = [Math.PI / (2 * (1 + s)), (s / (1 + s)) * (Math.PI / 2)];
    return {
      t_max: 0.995,
      alpha: (t) => Math.max(Math.cos((t + s) * rate), 0) / Math.cos(u0),
      sigma: (t) => Math.sqrt(Math.max(Math.sin(t * rate) * Math.sin(t * rate + 2 * u0), 0)) / Math.cos(u0),
    };
  },
  LinearBeta({ beta_min = 0.1, beta_max = 20 }) {
    const logAlpha = (t) => (-t * (2 * beta_min + t * (beta_max - beta_min))) / 4;
    return { t_max: 1, alpha: (t) => Math.exp(logAlpha(t)), sigma: (t) => Math.sqrt(-Math.expm1(2 * logAlpha(t))) };
  },
  Flow: () => ({ t_max: 0.999, alpha: (t) => 1 - t, sigma: (t) => t }),
};

/** alpha, sigma and logSnr of a schedule from its description { name, ...arguments }. */
export function makeSchedule({ name, ...rest }) {
  if (!SCHEDULES[name]) throw new Error(`the page knows no schedule ${name}; known: ${Object.keys(SCHEDULES).join(", ")}`);
  const { alpha, sigma, t_max } = SCHEDULES[name](rest);
  return { alpha, sigma, t_min: 1e-3, t_max, logSnr: (t) => 2 * (Math.log(alpha(t)) - Math.log(sigma(t))) };
}

/** So many numbers from `from` to `to`, counted from the nearer end, as torch does: both ends are exact. */
function evenly(from, to, count) {
  const step = (to - from) / Math.max(count - 1, 1);
  return Array.from({ length: count }, (_, k) => (k < count / 2 ? from + step * k : to - step * (count - 1 - k)));
}

/** The time in [t_min, t_max] with that log-SNR, by bisection. */
function timeAtLogSnr(schedule, wanted) {
  let [low, high] = [schedule.t_min, schedule.t_max];
  for (let k = 0; k < 60; k++) {
    const middle = (low + high) / 2;
    if (schedule.logSnr(middle) > wanted) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Decreasing times from `start` (t_max) to 0, steps + 1 of them. */
export function timeGrid(schedule, steps, spacing = "uniform", start = schedule.t_max) {
  if (spacing === "uniform") return evenly(start, 0, steps + 1);
  const ends = [start, schedule.t_min].map(schedule.logSnr);
  const snrs = spacing === "log_snr" ? evenly(...ends, steps) : evenly(...ends.map((end) => Math.exp(-end / 14)), steps).map((root) => -14 * Math.log(root));
  return [...snrs.map((snr) => timeAtLogSnr(schedule, snr)), 0];
}

// ---- one prediction: diffusion_edu/denoisers.py, guidance.py ----------------------------------------------------

const combine = (a, x, b, z) => x.map((value, i) => a * value + b * z[i]);

/** x0_hat of a network's raw output. */
function estimate(target, alpha, sigma, x, raw) {
  if (target === "x0") return Float64Array.from(raw);
  if (target === "v") return combine(alpha / (alpha ** 2 + sigma ** 2), x, -sigma / (alpha ** 2 + sigma ** 2), raw);
  if (target === "eps") return combine(1 / alpha, x, -sigma / alpha, raw);
  return combine(1 / alpha, x, sigma ** 2 / alpha, raw); // score
}

/** A denoiser (x, t) -> Promise of { x, t, x0, eps }, guided with weight w: both questions go into one network call. */
function makeDenoiser(network, { schedule, target, clip, num_classes }, y, w) {
  return async (x, t) => {
    const [alpha, sigma] = [schedule.alpha(t), schedule.sigma(t)];
    const wishes = w === 1 ? y : [...y.map(() => num_classes), ...y];
    const input = new Float32Array((x.length * wishes.length) / y.length);
    for (let at = 0; at < input.length; at += x.length) input.set(x, at);
    const raw = await network(input, new Float32Array(wishes.length).fill(t), wishes);
    let x0 = estimate(target, alpha, sigma, x, raw.subarray(raw.length - x.length));
    if (w !== 1) x0 = combine(w, x0, 1 - w, estimate(target, alpha, sigma, x, raw.subarray(0, x.length)));
    if (clip) x0 = x0.map((value) => Math.min(Math.max(value, clip[0]), clip[1]));
    return { x, t, x0, eps: combine(1 / sigma, x, -alpha / sigma, x0) };
  };
}

// ---- samplers: diffusion_edu/samplers.py. Each makes a rule (prediction, s) -> x_s ------------------------------

/** alpha_{t|s} and sigma^2_{t|s} of q(x_t | x_s). */
const transition = ({ alpha, sigma, logSnr }, t, s) => [alpha(t) / alpha(s), -(sigma(t) ** 2) * Math.expm1(logSnr(t) - logSnr(s))];

/** Mean and standard deviation of q(x_s | x_t, x_0). */
function posterior(schedule, { x, t, x0 }, s) {
  const [ratio, variance] = transition(schedule, t, s);
  const share = (schedule.sigma(s) / schedule.sigma(t)) ** 2;
  const mean = combine(ratio * share, x, (schedule.alpha(s) * variance) / schedule.sigma(t) ** 2, x0);
  return [mean, Math.sqrt(variance * share)];
}

/** The straight line along eps to the noise level of s. */
function straight({ alpha, sigma }, { x, t }, s, eps) {
  const ratio = alpha(s) / alpha(t);
  return combine(ratio, x, sigma(s) - ratio * sigma(t), eps);
}

const SAMPLERS = {
  ddim: ({ schedule }) => ({ x0, eps }, s) => combine(schedule.alpha(s), x0, schedule.sigma(s), eps),
  ancestral: ({ schedule, noise }) => (prediction, s) => {
    const [mean, std] = posterior(schedule, prediction, s);
    return s === 0 ? mean : combine(1, mean, std, noise());
  },
  "dpm-solver++"({ schedule }) {
    const { alpha, sigma, logSnr } = schedule;
    let last = null;
    return ({ x, t, x0 }, s) => {
      const now = logSnr(t) / 2;
      let aim = x0;
      if (last && s > 0) {
        const stretch = (logSnr(s) / 2 - now) / (2 * (now - last.now));
        aim = combine(1 + stretch, x0, -stretch, last.x0);
      }
      last = { now, x0 };
      const ratio = sigma(s) / sigma(t);
      return combine(ratio, x, alpha(s) - ratio * alpha(t), aim);
    };
  },
  edm: ({ schedule, denoise }) => async (prediction, s) => {
    const x = straight(schedule, prediction, s, prediction.eps);
    return s === 0 ? x : straight(schedule, prediction, s, combine(0.5, prediction.eps, 0.5, (await denoise(x, s)).eps));
  },
};

/** Ancestral steps in which the kept part is replaced by itself, noised to each time, each step taken `resamples` times. */
function inpaint({ schedule, denoise, noise }, { image, mask }, resamples) {
  const step = (prediction, s) => {
    const [mean, std] = posterior(schedule, prediction, s);
    const z = s === 0 ? mean.map(() => 0) : noise();
    return mean.map((value, i) => (mask[i] ? schedule.alpha(s) * image[i] + schedule.sigma(s) * z[i] : value + std * z[i]));
  };
  return async (prediction, s) => {
    let x = step(prediction, s);
    for (let r = 1; r < resamples; r++) {
      const [ratio, variance] = transition(schedule, prediction.t, s);
      x = step(await denoise(combine(ratio, x, Math.sqrt(variance), noise()), prediction.t), s);
    }
    return x;
  };
}

// ---- a request: diffusion_edu/widgets/live.py -------------------------------------------------------------------

const within = (value, low, high) => typeof value === "number" && value >= low && value <= high;
const whole = (value, low, high) => Number.isInteger(value) && within(value, low, high);

/** Numbers of one image for all, or of one for each. */
function spread(values, name, count, size) {
  const found = Float64Array.from(values ?? []);
  if (found.length !== size && found.length !== count * size) throw new Error(`${name} must hold ${size} numbers, or ${size} for each image, got ${found.length}`);
  return found.length === size ? Float64Array.from({ length: count * size }, (_, i) => found[i % size]) : found;
}

/** The request with its defaults; an Error in one sentence where it makes no sense. */
export function checked(request, { num_classes, shape, schedule }) {
  const { y, w = 1, keep = null, start = null, evaluations = 20, grid = "uniform", seed = 0, resamples = 1 } = request;
  const sampler = request.sampler ?? (keep ? "ancestral" : "ddim");
  const size = shape.reduce((a, b) => a * b);
  const refuse = (name, value, allowed) => { throw new Error(`${name} must be ${allowed}, got ${JSON.stringify(value)}`); };
  if (!Array.isArray(y) || !whole(y.length, 1, 10) || !y.every((c) => whole(c, 0, num_classes))) refuse("y", y, `1 to 10 classes from 0 to ${num_classes}`);
  if (!within(w, -20, 20)) refuse("w", w, "a number from -20 to 20");
  if (!Object.hasOwn(SAMPLERS, sampler)) refuse("sampler", sampler, Object.keys(SAMPLERS).join(", "));
  if (keep && sampler !== "ancestral") refuse("sampler", sampler, "ancestral where a part is kept");
  if (!["uniform", "log_snr", "edm"].includes(grid)) refuse("grid", grid, "uniform, log_snr or edm");
  if (!whole(evaluations, 1, 200)) refuse("evaluations", evaluations, "a whole number from 1 to 200");
  if (!whole(resamples, 1, evaluations)) refuse("resamples", resamples, "a whole number from 1 to the evaluations");
  const seeds = Array.isArray(seed) ? seed : y.map(() => seed);
  if (seeds.length !== y.length || !seeds.every((each) => whole(each, 0, 0xffffffff))) refuse("seed", seed, "a whole number from 0 to 2^32 - 1, or one for each image");
  if (start && !(start.t > schedule.t_min && within(start.t, 0, schedule.t_max))) refuse("start.t", start.t, `a time from ${schedule.t_min} to ${schedule.t_max}`);
  const images = (part, names) => part && Object.fromEntries(names.map((name) => [name, spread(part[name], name, y.length, size)]));
  const kept = images(keep, ["image", "mask"]);
  if (kept?.mask.some((value) => value !== 0 && value !== 1)) refuse("mask", "other numbers", "1 where the image is kept and 0 elsewhere");
  const steps = sampler === "edm" ? (evaluations + 1) >> 1 : Math.floor(evaluations / (keep ? resamples : 1));
  return { y, w, sampler, steps, grid, seeds, size, resamples, keep: kept, start: start && { t: start.t, ...images(start, ["image"]) } };
}

/**
 * The states of a request, one after the other: { step, of, t, x_t, x0_hat, ms }. facts: what the network's file says of it.
 * step = 0 ... of; at the last, t = 0, both are the finished images; ms is the network's time since the state before.
 */
export async function* trajectory(network, facts, request) {
  const schedule = makeSchedule(facts.schedule);
  const { y, w, sampler, steps, grid, seeds, size, resamples, keep, start } = checked(request, { ...facts, schedule });
  let ms = 0;
  const timed = async (...inputs) => {
    const before = performance.now();
    const raw = await network(...inputs);
    ms += performance.now() - before;
    return raw;
  };
  const noise = sharedNoise(seeds, size);
  const denoise = makeDenoiser(timed, { ...facts, schedule }, y, w);
  const tools = { schedule, denoise, noise };
  const rule = keep ? inpaint(tools, keep, resamples) : SAMPLERS[sampler](tools);
  const ts = timeGrid(schedule, steps, grid, start?.t);
  let x = noise();
  if (start) x = combine(schedule.alpha(start.t), start.image, schedule.sigma(start.t), x);
  for (let step = 0; step < steps; step++) {
    const prediction = await denoise(x, ts[step]);
    yield { step, of: steps, t: ts[step], x_t: x, x0_hat: prediction.x0, ms };
    ms = 0;
    x = await rule(prediction, ts[step + 1]);
  }
  yield { step: steps, of: steps, t: 0, x_t: x, x0_hat: x };
}

/** [-1, 1] -> 0 ... 255, clipped; halves go to the even neighbour, as in Python. */
export const toUint8 = (x) => new Uint8Array(Uint8ClampedArray.from(x, (value) => (value + 1) * 127.5).buffer);

// ---- the network's file -----------------------------------------------------------------------------------------

/** The metadata of an ONNX file (a protobuf; field 14 holds pairs of texts), each value read as JSON. */
export function readFacts(bytes) {
  const facts = {};
  for (const [field, content] of protobufFields(bytes)) {
    if (field !== 14) continue;
    const [name, value] = [...protobufFields(content)].map(([, text]) => new TextDecoder().decode(text));
    facts[name] = JSON.parse(value);
  }
  return facts;
}

/** The fields of a protobuf message that hold bytes, as [number, bytes]. */
function* protobufFields(bytes) {
  let at = 0;
  const varint = () => {
    let [value, factor, byte] = [0, 1, 0];
    do {
      byte = bytes[at++];
      value += (byte & 127) * factor;
      factor *= 128;
    } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    const [key, size] = [varint(), varint()];
    if (key % 8 === 0) continue; // a number, and it is read
    if (key % 8 !== 2) throw new Error("the network's file is damaged");
    yield [Math.floor(key / 8), bytes.subarray(at, at + size)];
    at += size;
  }
}
