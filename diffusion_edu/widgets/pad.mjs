// A pad to draw a digit on: strokes, their pixels as MNIST would have them, and the canvas that takes them.
// Strokes are lists of [column, row], in cells from the upper left corner. Python: `rasterise` and `distance_to` of draw_your_own.py.

import { between, make, unique } from "./common.mjs";

// ---- strokes ------------------------------------------------------------------------------------------

export const [SIZE, PEN, EDGE, ERASER] = [28, 1.4, 1.2, 2.6];
export const CELLS = SIZE * SIZE;
export const FRAME = 20; // MNIST's digits are this long, and their mass is centred at MIDDLE
export const MIDDLE = 14.5;

/** Whether a link's value is a list of strokes on the canvas. */
export const areStrokes = (value) =>
  Array.isArray(value) && value.every((stroke) => Array.isArray(stroke) && stroke.length > 0 && stroke.every((point) =>
    Array.isArray(point) && point.length === 2 && point.every((each) => typeof each === "number" && between(0, SIZE)(each))));

/** Distance of each cell's centre to the nearest stroke; infinite without any. */
export function distanceTo(strokes) {
  const best = new Float64Array(CELLS).fill(Infinity);
  for (const stroke of strokes)
    stroke.forEach(([x, y], i) => {
      const [u, v] = stroke[i + 1] ?? [x, y];
      const [dx, dy] = [u - x, v - y];
      const long = Math.max(dx * dx + dy * dy, 1e-12);
      for (let k = 0; k < CELLS; k++) {
        const [a, b] = [(k % SIZE) + 0.5 - x, Math.floor(k / SIZE) + 0.5 - y];
        const share = Math.min(Math.max((a * dx + b * dy) / long, 0), 1);
        best[k] = Math.min(best[k], Math.hypot(a - share * dx, b - share * dy));
      }
    });
  return best;
}

/** The drawing as the network is shown it: from -1, paper, to 1, ink, soft at the edges as MNIST's strokes are. */
export const rasterise = (strokes) => distanceTo(strokes).map((d) => 2 * Math.min(Math.max(0.5 + (PEN - d) / EDGE, 0), 1) - 1);

/** 1 where the drawing is kept, 0 where it is erased. */
export const maskOf = (erased) => distanceTo(erased).map((d) => (d > ERASER ? 1 : 0));

/** Longest side of the drawing in cells, and where the centre of its ink lies; null for an empty one. */
export function measure(strokes) {
  const points = strokes.flat();
  if (!points.length) return null;
  const sides = [0, 1].map((axis) => points.map((point) => point[axis])).map((each) => Math.max(...each) - Math.min(...each));
  let [mass, column, row] = [0, 0, 0];
  rasterise(strokes).forEach((value, k) => {
    mass += value + 1;
    column += (value + 1) * ((k % SIZE) + 0.5);
    row += (value + 1) * (Math.floor(k / SIZE) + 0.5);
  });
  return { long: Math.max(...sides) + 2 * PEN, column: column / mass, row: row / mass };
}

/** The strokes as MNIST places its digits: the longest side 20 cells, the centre of the ink at (14.5, 14.5). */
export function fit(strokes) {
  const points = strokes.flat();
  if (!points.length) return strokes;
  const middle = [0, 1].map((axis) => points.map((point) => point[axis])).map((each) => (Math.max(...each) + Math.min(...each)) / 2);
  const ratio = Math.min((FRAME - 2 * PEN) / Math.max(measure(strokes).long - 2 * PEN, 1e-9), 10);
  const scaled = strokes.map((stroke) => stroke.map((point) => point.map((value, axis) => (value - middle[axis]) * ratio + SIZE / 2)));
  const { column, row } = measure(scaled);
  return scaled.map((stroke) => stroke.map(([x, y]) => [tenth(x + MIDDLE - column), tenth(y + MIDDLE - row)]));
}

const tenth = (value) => Math.round(value * 10) / 10;

// ---- the canvas ---------------------------------------------------------------------------------------

/** Paint values from -1 to 1 on a canvas of 28 x 28, those where `mask` is 0 in blue. */
export function paint(canvas, values, mask = null) {
  const image = new ImageData(SIZE, SIZE);
  for (let k = 0; k < CELLS; k++) {
    const grey = Math.round(Math.min(Math.max((values[k] + 1) / 2, 0), 1) * 255);
    image.data.set(mask && !mask[k] ? [47 + grey / 4, 109 + grey / 4, 179 + grey / 4, 255] : [grey, grey, grey, 255], 4 * k);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** A canvas of a cell a pixel. */
export const makeCanvas = (attributes) => make("canvas", { width: SIZE, height: SIZE, ...attributes });

/** A canvas to draw on with a pointer or the keyboard: onMove(stroke) while a stroke grows, onEnd(stroke) when it is finished. */
export function makePad(onMove, onEnd, onUndo, say) {
  const canvas = makeCanvas({ "aria-hidden": "true" });
  const pen = make("svg:circle", { class: "pen", r: PEN });
  const frame = make("svg:rect", { class: "frame", x: 4.5, y: 4.5, width: FRAME, height: FRAME });
  const over = make("svg:svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, "aria-hidden": "true" }, frame, pen);
  const hint = make("p", { class: "quiet", id: unique() }, "Mouse, finger, or keys: arrows move the pen, space puts it down and lifts it, backspace takes a stroke back.");
  const node = make("div", { class: "pad", tabindex: 0, role: "application", "aria-label": "drawing", "aria-describedby": hint.id }, canvas, over);
  let [stroke, finger, at] = [null, null, [14.5, 7.5]];
  const show = () => {
    pen.setAttribute("transform", `translate(${at})`);
    node.classList.toggle("down", stroke !== null && finger === null);
  };
  const begin = (point) => {
    stroke = [point];
    onMove(stroke);
  };
  const finish = () => {
    if (!stroke) return;
    const done = stroke;
    [stroke, finger] = [null, null];
    onEnd(done);
    show();
  };
  const add = (point, least) => {
    const [x, y] = stroke.at(-1);
    if (Math.hypot(point[0] - x, point[1] - y) >= least) stroke.push(point);
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const cell = (value, low, length) => tenth(Math.min(Math.max(((value - low) / length) * SIZE, 0), SIZE));
    return [cell(event.clientX, box.left, box.width), cell(event.clientY, box.top, box.height)];
  };
  node.addEventListener("pointerdown", (event) => {
    if (event.button || finger !== null) return;
    finish();
    node.setPointerCapture(event.pointerId);
    finger = event.pointerId;
    node.classList.remove("keys");
    begin(place(event));
  });
  node.addEventListener("pointermove", (event) => {
    if (event.pointerId !== finger || !stroke) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) add(place(each), 0.6);
    onMove(stroke);
  });
  for (const end of ["pointerup", "pointercancel"]) node.addEventListener(end, (event) => event.pointerId === finger && finish());
  node.addEventListener("blur", () => finger === null && finish());
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  node.addEventListener("keydown", (event) => {
    if (finger !== null || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = arrows[event.key];
    if (arrow) at = at.map((value, axis) => Math.min(Math.max(value + arrow[axis], 0.5), SIZE - 0.5));
    else if (event.key === " ") stroke ? finish() : begin(at);
    else if (event.key === "Escape") finish();
    else if (event.key === "Backspace") finish(), onUndo();
    else return;
    event.preventDefault();
    node.classList.add("keys");
    if (arrow && stroke) {
      add(at, 0.6);
      onMove(stroke);
    }
    show();
    say(`pen ${stroke ? "down" : "up"}, row ${at[1] + 0.5}, column ${at[0] + 0.5}`);
  });
  show();
  return { node: make("div", {}, node, hint), canvas, size: (radius) => pen.setAttribute("r", radius) };
}
