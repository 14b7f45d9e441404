// Conventions side by side: formulas and code of a source and of this book, and the numbers that both give.
// Python: diffusion_edu/widgets/convention_translator.py evaluates the lines of diffusion_edu/conventions.py.

import { between, fixed, make, makeRadios, makeSlider, makeWidget, makeWords, unique } from "./common.mjs";

// ---- mathematics and words ----------------------------------------------------------------------

/** Log signal-to-noise ratio of x = signal x_0 + noise eps: the same in every convention. */
export const logSnr = (signal, noise) => 2 * Math.log(signal / noise);

/** Three significant digits, or so many decimals, with a true minus sign. */
export const number = (x, decimals) => (decimals === undefined ? String(Number(x.toPrecision(3))).replace("-", "−") : fixed(x, decimals));

/** Where a number lies between the least and the largest of its list, from 0 to 1; by logarithms where these are far apart. */
export function placeIn(values, i) {
  const far = Math.min(...values) > 0 && Math.max(...values) > 200 * Math.min(...values);
  const scaled = far ? values.map(Math.log) : values;
  const [low, high] = [Math.min(...scaled), Math.max(...scaled)];
  return (scaled[i] - low) / (high - low);
}

/** The quantity to show when a source is chosen that may not have the present one. */
export const quantityFor = (source, wanted) => (wanted in source.rows ? wanted : "marginal");

/** "the SDE paper" -> "The SDE paper", at the head of a line. */
export const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** A source's own time at position i, as it writes it. */
export function clockOf(source, i) {
  const late = source.beyond !== null && source.times[i] > source.beyond;
  return source.clock.replace("{}", number(source.times[i], source.digits)) + (late ? ", beyond its end" : "");
}

/** A source's guidance weight at position i, as it writes it. */
export const weightOf = (source, i) => source.weight.replace("{}", number(source.weights[i]));

/** What is seen now, in sentences. */
export function describe({ source, quantity, i, ours, guidanceTime }) {
  const { theirs, ours: mine } = source.rows[quantity];
  const value = number(theirs.values[i], 4);
  const agree = value === number(mine.values[i], 4) ? `Both lines give ${value}` : `The lines disagree: ${value} and ${number(mine.values[i], 4)}`;
  const first = quantity === "guidance"
    ? `Our w = ${number(ours.weights[i])} is ${weightOf(source, i)} in the letters of ${source.short}. ${agree} at t = ${guidanceTime}.`
    : `Our t = ${number(ours.times[i], 2)} is ${clockOf(source, i)} on the clock of ${source.short}; the log-SNR is ${number(logSnr(ours.signal[i], ours.noise[i]), 2)} on both. ${agree}.`;
  return `${first}\n${source.mind}`;
}

// ---- the picture --------------------------------------------------------------------------------

/** One side: a formula, its line of code, and the number that this gives. */
function makeSide(kind) {
  const [title, formula, code, value] = [make("div", { class: "title" }), make("div", { class: "formula", tabindex: 0, role: "group" }), make("code"), make("output", { "aria-live": "off" })];
  const show = (name, { formula: mathml, code: line, values }, i) => {
    title.textContent = name;
    formula.innerHTML = mathml;
    formula.setAttribute("aria-label", name);
    code.textContent = line;
    value.textContent = `= ${number(values[i], 4)}`;
  };
  return { node: make("section", { class: kind }, title, formula, code, value), show };
}

/** The table of all sources: rows of cells as texts, the chosen one marked, a dot where its time stands. */
function makeTable() {
  const body = make("tbody");
  const head = make("tr");
  const show = (titles, rows) => {
    head.replaceChildren(...titles.map((title) => make("th", { scope: "col" }, title)));
    body.replaceChildren(...rows.map(({ cells, chosen, at }) => {
      const row = make("tr", chosen ? { class: "chosen" } : {});
      cells.forEach((cell, k) => {
        const track = k === 1 && at !== undefined ? [make("i", { class: "track", "aria-hidden": "true" }, make("b", { style: `left: ${(100 * at).toFixed(1)}%` }))] : [];
        row.append(make(k ? "td" : "th", k ? {} : { scope: "row" }, cell.replace(/ ([=≈]) /g, "\u00a0$1\u00a0"), ...track));
      });
      return row;
    }));
  };
  return { node: make("table", {}, make("thead", {}, head), body), show };
}

function render(host) {
  const [sources, quantities, ours, guidanceTime] = ["sources", "quantities", "ours", "guidance_time"].map((name) => host.model.get(name));
  const { root, get, set, live } = makeWidget(host, "edu-translator", "Formulas in the letters of others and in ours", {
    source: Object.keys(sources), quantity: quantities.map(([key]) => key), t: between(0.01, 0.99), w: between(0, 8),
  });

  const id = unique();
  const select = make("select", { id }, ...Object.entries(sources).map(([key, { name }]) => make("option", { value: key }, name)));
  select.addEventListener("change", () => set({ quantity: quantityFor(sources[select.value], get().quantity), source: select.value }));
  const choices = makeRadios("what", quantities, (quantity) => set({ quantity }));
  const inputs = [...choices.node.querySelectorAll("input")];
  const time = makeSlider("our time t", ours.times.length, (position) => set({ t: ours.times[position] }));
  const weight = makeSlider("our guidance weight w", ours.weights.length, (position) => set({ w: ours.weights[position] }));
  const [theirs, mine] = [makeSide("theirs"), makeSide("ours")];
  const letters = make("dl");
  const table = makeTable();
  root.append(
    make("div", { class: "source" }, make("label", { for: id }, "source"), select),
    choices.node,
    time.node, weight.node, make("div", { class: "sides" }, theirs.node, mine.node));
  const words = makeWords(root);
  root.append(make("details", {}, make("summary", {}, "Their letters in ours"), letters), table.node);

  function draw() {
    const { source: key, quantity: wanted, t, w } = get();
    const source = sources[key];
    const quantity = quantityFor(source, wanted); // a link may name a pair that does not exist
    const guided = quantity === "guidance";
    const i = guided ? Math.round(2 * w) : Math.round(100 * t) - 1;
    select.value = key;
    choices.show(quantity);
    inputs.forEach((input, k) => (input.disabled = !(quantities[k][0] in source.rows)));
    [time.node.hidden, weight.node.hidden] = [guided, !guided];
    if (guided) weight.show(i, number(ours.weights[i]), `w ${number(ours.weights[i])}, in ${source.short} ${weightOf(source, i)}`);
    else time.show(i, number(ours.times[i], 2), `t ${number(ours.times[i], 2)}, in ${source.short} ${clockOf(source, i)}`);
    theirs.show(`${capital(source.short)} writes`, source.rows[quantity].theirs, i);
    mine.show("This book writes", source.rows[quantity].ours, i);
    letters.replaceChildren(...source.letters.flatMap(([name, line]) => [make("dt", {}, name), make("dd", {}, line)]));
    drawTable(key, guided, i);
    words.say(describe({ source, quantity, i, ours, guidanceTime }));
  }

  function drawTable(key, guided, i) {
    const each = Object.entries(sources).filter(([, source]) => !guided || source.weight);
    if (guided) {
      const rows = each.map(([name, source]) => ({ cells: [capital(source.short), weightOf(source, i)], chosen: name === key }));
      table.show(["source", "the same strength"], [{ cells: ["This book", `w = ${number(ours.weights[i])}`] }, ...rows]);
      return;
    }
    const numbers = ({ signal, noise }) => [number(signal[i]), number(noise[i]), number(logSnr(signal[i], noise[i]), 2)];
    const rows = each.map(([name, source]) => ({ cells: [capital(source.short), clockOf(source, i), ...numbers(source)], chosen: name === key, at: placeIn(source.times, i) }));
    const own = { cells: ["This book", `t = ${number(ours.times[i], 2)}`, ...numbers(ours)], at: placeIn(ours.times, i) };
    table.show(["source", "the same noise level", "signal ×", "noise ×", "log-SNR"], [own, ...rows]);
  }

  return live(draw, words.stop);
}

export default { render };
