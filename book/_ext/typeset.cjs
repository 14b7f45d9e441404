// Typesets formulas with MathJax, once, when the book is built.
//
//   node typeset.cjs < [["x^2", false], …]      TeX, and whether it stands on a line of its own
//   > {"formulas": [{"svg", "mathml"} | {"error"}, …], "glyphs": {"NCM-I-1D465": "M52 …", …}}
//
// A formula's SVG refers to its glyphs by id; the page holds each glyph once. Run in the folder of node_modules.

const { createRequire } = require("node:module");
const MathJax = createRequire(`${process.cwd()}/`)("mathjax/node-main.cjs");

/** Drop what only MathJax's own scripts read, and groups that do nothing. */
function slim(markup) {
  const kept = markup
    .replace(/ data-(?!line|frame)[\w-]+="[^"]*"/g, "")
    .replace(/ (xmlns(:xlink)?|role|focusable)="[^"]*"/g, "")
    .replace(/<(use|rect|line|path)([^>]*)><\/\1>/g, "<$1$2/>");
  const open = [];
  return kept.replace(/<(\/?)g([^>]*)>/g, (tag, end, attributes) => {
    if (end) return open.pop() ? tag : "";
    open.push(attributes !== "");
    return attributes === "" ? "" : tag;
  });
}

/** Take the glyphs' outlines out of a formula's SVG and put them into `glyphs`. */
function takeGlyphs(svg, glyphs) {
  const short = svg.replace(/MJX-\d+-/g, "").replaceAll("xlink:href", "href");
  const blank = new Set();
  for (const [, id, outline] of short.matchAll(/<path id="([^"]+)" d="([^"]*)">/g)) {
    if (outline) glyphs[id] = outline;
    else blank.add(id);
  }
  return short
    .replace(/<defs>.*?<\/defs>/s, "")
    .replace(/<use[^>]* href="#([^"]+)"[^>]*><\/use>/g, (use, id) => (blank.has(id) ? "" : use))
    .replace(' stroke="currentColor" fill="currentColor" stroke-width="0"', ""); // book.css says so once
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const mathjax = await MathJax.init({
    loader: { load: ["input/tex-base", "[tex]/ams", "[tex]/newcommand", "[tex]/textmacros", "output/svg", "adaptors/liteDOM"] },
    tex: { packages: ["base", "ams", "newcommand", "textmacros"], formatError: (_, error) => { throw error; } },
    output: { fontCache: "local", linebreaks: { inline: false } },
  });
  const { adaptor } = mathjax.startup;
  const glyphs = {};
  const formulas = [];
  for (const [tex, display] of JSON.parse(Buffer.concat(chunks).toString())) {
    try {
      const container = await mathjax.tex2svgPromise(tex, { display });
      const mathml = await mathjax.tex2mmlPromise(tex, { display });
      const svg = slim(takeGlyphs(adaptor.outerHTML(adaptor.firstChild(container)), glyphs));
      formulas.push({ svg, mathml: slim(mathml.replace(/>\s+</g, "><")) });
    } catch (error) {
      formulas.push({ error: error.message });
    }
  }
  process.stdout.write(JSON.stringify({ formulas, glyphs }));
}

main();
