// Sampling, watched: a slider over the states x_t of a real run and the denoiser's estimates x0_hat.
// Python: diffusion_edu/widgets/trajectory.py

import { inWords, make, makeChart, makePlayedSlider, makeWidget, makeWords, typeset } from "./common.mjs";

// ---- words ------------------------------------------------------------------------------------------

/** What is seen at t, in sentences; snr is null where there is no noise, distance that of x0_hat to the end. */
export function describe(t, snr, distance) {
  if (snr === null) return "t = 0: the finished images. The last step added no noise.";
  const balance = snr < 0 ? `noise ${inWords(Math.exp(-snr), 2)} times the signal` : `signal ${inWords(Math.exp(snr), 2)} times the noise`;
  return `t = ${t.toFixed(2)}, log-SNR ${inWords(snr)}: in x_t there is ${balance}. The estimate x̂_0 differs from the finished image by ${inWords(distance, 2)} (root mean square; black is −1, white 1).`;
}

// ---- the picture ------------------------------------------------------------------------------------

const FILM = 5; // images side by side
const CURVES = [
  { of: "state_distances", name: "xₜ", colour: "#6b7280", dash: "6 3" },
  { of: "distances", name: "x̂₀", colour: "#2f6db3", dash: "" },
];

/** Canvases for images first ... last - 1 of the sprite sheet, x_t above x0_hat. */
function makeFilm(sheet, labels, [height, width], first) {
  const mine = labels.slice(first, first + FILM);
  const film = make("div", { class: "film", style: `--columns: ${mine.length}` });
  const pens = [];
  film.append(make("i"), ...mine.map((label) => make("b", {}, label)));
  for (const [row, name] of ["x_t", "x̂_0"].entries()) {
    film.append(make("i", {}, ...typeset(name)));
    mine.forEach((_, column) => {
      const canvas = make("canvas", { width, height });
      const pen = canvas.getContext("2d");
      pens.push((frame) => pen.drawImage(sheet, (first + column) * width, (2 * frame + row) * height, width, height, 0, 0, width, height));
      film.append(canvas);
    });
  }
  return { film, show: (frame) => pens.forEach((draw) => draw(frame)) };
}

async function render(host) {
  const { model } = host;
  const [times, snrs, labels, shape] = ["times", "log_snrs", "labels", "shape"].map((name) => model.get(name));
  const distances = model.get("distances");
  const last = times.length - 1;
  const { root, get, set, live } = makeWidget(host, "edu-trajectory", "Sampling, watched", { time_index: [...times.keys()] });
  const sheet = new Image();
  sheet.src = `data:image/png;base64,${model.get("sprites")}`;
  await sheet.decode();

  const slider = makePlayedSlider("time", times.length, () => get().time_index, (time_index) => set({ time_index }));

  const films = [];
  for (let first = 0; first < labels.length; first += FILM) films.push(makeFilm(sheet, labels, shape, first));
  const pictures = make("div", { class: "films", role: "img", "aria-label": `Images ${labels.join(", ")}: the state x_t above, the estimate of the finished image below` }, ...films.map((each) => each.film));

  const highest = Math.ceil(5 * Math.max(...CURVES.flatMap(({ of }) => model.get(of)))) / 5;
  const ticks = Array.from({ length: Math.floor(highest / 0.5) + 1 }, (_, i) => [i / 2, String(i / 2)]);
  const chart = makeChart("Distance to the finished image (root mean square)", [[0, "t = 1, noise"], [1, "data, t = 0"]], [0, highest], ticks);
  const dots = CURVES.map(({ of, name, colour, dash }) => {
    const values = model.get(of);
    chart.addCurve(colour, dash).draw(values.map((value, frame) => [1 - times[frame], value]));
    chart.plot.append(make("svg:text", { x: 6, y: Number(chart.y(values[0])) + 16 }, name));
    const moveDot = chart.addDot();
    return (frame) => moveDot(1 - times[frame], values[frame], colour);
  });

  const text = make("div");
  root.append(slider.node, pictures, make("div", { class: "below" }, chart.node, text));
  const words = makeWords(text);

  function draw() {
    const frame = get().time_index;
    slider.show(frame, `t = ${times[frame].toFixed(2)}`, `t ${times[frame].toFixed(2)}, frame ${frame + 1} of ${last + 1}`);
    films.forEach(({ show }) => show(frame));
    dots.forEach((move) => move(frame));
    chart.moveCursor(1 - times[frame]);
    words.say(describe(times[frame], snrs[frame], distances[frame]));
  }

  return live(draw, words.stop, slider.stop);
}

export default { render };
