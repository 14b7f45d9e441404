// A training run as a film: what the same noises become after more and more steps, beside the loss.
// Python: diffusion_edu/widgets/training_film.py

import { between, inWords, make, makeChart, makeLegend, makePlayedSlider, makeWidget, makeWords } from "./common.mjs";

// ---- mathematics ------------------------------------------------------------------------------------

/** The record [step, loss, rate, minutes] of a step. */
export const recordOf = (records, step) => records.find((record) => record[0] === step);

/** Where a step stands on a logarithmic axis from the first record to the last, 0 to 1. */
export function across(records, step) {
  const [first, last] = [records[0][0], records.at(-1)[0]];
  return first === last ? 0 : Math.log(step / first) / Math.log(last / first);
}

/** The step on which the weight average is centred. */
export const middleOf = (step, centre) => Math.round(centre * step);

// ---- words ------------------------------------------------------------------------------------------

const steps = (n) => n.toLocaleString("en-US");

/** What is seen, in sentences. */
export function describe(records, [step, loss, rate, minutes], centre) {
  const peak = Math.max(...records.map((record) => record[2]));
  const end = records.at(-1)[1];
  const share = loss <= end ? "no more than" : `${(loss / end).toFixed(2)} times`;
  return `After ${steps(step)} of ${steps(records.at(-1)[0])} steps and ${minutes.toFixed(1)} minutes: loss ${loss.toFixed(3)}, ${share} that of the last record. Learning rate ${inWords(rate, 2)}, ${(100 * rate / peak).toFixed(0)} % of its peak. The average is centred on step ${steps(middleOf(step, centre))}.`;
}

// ---- the picture ------------------------------------------------------------------------------------

const ROWS = [["average", "by the weight average"], ["weights", "by the weights themselves"]];
const TICKS = [0.02, 0.05, 0.1, 0.2, 0.5, 1];

/** Images in rows of `across`, with their title; draw(row) cuts them out of the sheet. */
function makeImages(sheet, [shown, height, width], across, noun, kind, text) {
  const canvas = make("canvas", { width: across * (width + 2) - 2, height: Math.ceil(shown / across) * (height + 2) - 2, role: "img" });
  return {
    node: make("figure", { class: kind }, make("div", { class: "quiet" }, text), canvas),
    draw(row, step) {
      canvas.setAttribute("aria-label", `${shown} ${noun} ${text}, after ${steps(step)} steps`);
      const pen = canvas.getContext("2d");
      for (let i = 0; i < shown; i++) {
        const [x, y] = [(i % across) * (width + 2), Math.floor(i / across) * (height + 2)];
        pen.drawImage(sheet, i * width, row * height, width, height, x, y, width, height);
      }
    },
  };
}

function render(host) {
  const { model } = host;
  const [frames, records, centre, size, noun, sprites] = ["steps", "records", "centre", "size", "noun", "sprites"].map((name) => model.get(name));
  const { root, get, set, live } = makeWidget(host, "edu-film", "A training run as a film", { frame: (n) => Number.isInteger(n) && between(0, frames.length - 1)(n) });
  const coloured = sprites.startsWith("/9j/"); // so begins every JPEG
  const slider = makePlayedSlider("training steps", frames.length, () => get().frame, (frame) => set({ frame }));
  const sheet = new Image();
  const images = ROWS.map(([kind, text]) => makeImages(sheet, size, coloured ? 5 : size[0], noun, kind, text));
  const losses = records.map((record) => Math.log10(record[1]));
  const [low, high] = [Math.min(...losses) - 0.03, Math.max(...losses) + 0.03];
  const ticks = TICKS.filter((tick) => between(low, high)(Math.log10(tick)));
  const chart = makeChart("loss, and learning rate, over the steps", [[0, steps(records[0][0])], [1, steps(records.at(-1)[0])]], [low, high], ticks.map((tick) => [Math.log10(tick), String(tick)]));
  const peak = Math.max(...records.map((record) => record[2]));
  const curves = [{ name: "loss", colour: "#2f6db3" }, { name: "learning rate, from 0 to its peak", colour: "#d9822b", dash: "5 3" }];
  const [loss, rate] = curves.map(({ colour, dash }) => chart.addCurve(colour, dash));
  loss.draw(records.map((record, i) => [across(records, record[0]), losses[i]]));
  rate.draw(records.map((record) => [across(records, record[0]), low + (high - low) * record[2] / peak]));
  const dot = chart.addDot();
  root.append(slider.node, make("div", { class: coloured ? "pair stacked" : "pair" }, make("div", { class: "images" }, ...images.map(({ node }) => node)), make("div", {}, chart.node, makeLegend(curves))));
  const words = makeWords(root);

  function draw() {
    const { frame } = get();
    const record = recordOf(records, frames[frame]);
    slider.show(frame, steps(record[0]), `after ${steps(record[0])} training steps`);
    if (sheet.complete && sheet.naturalWidth) images.forEach((row, i) => row.draw(2 * frame + i, record[0]));
    dot(across(records, record[0]), Math.log10(record[1]), curves[0].colour);
    chart.moveCursor(across(records, record[0]));
    words.say(describe(records, record, centre));
  }

  const end = live(draw, words.stop, slider.stop);
  sheet.addEventListener("load", draw);
  sheet.src = `data:image/${coloured ? "jpeg" : "png"};base64,${sprites}`;
  return end;
}

export default { render };
