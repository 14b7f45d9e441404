// Mounts the book's widgets on the built site, over http and from a folder (file://) alike.
//
// A widget writes into the page
//   <div class="edu-widget" data-widget="NAME">
//     <script type="application/json" class="edu-state">its state, as JSON</script>
//     <script type="application/json" class="edu-module">the text of its ES module, as JSON</script>
//     <div class="edu-static">a figure: shown without JavaScript, on an error, and in print</div>
//   </div>
// The module is an anywidget front end, `export default { render({ model, el }) }`, the same that JupyterLab
// loads. Here `model` is the small stand-in below: there is no Python behind a page. What a widget asks a trained
// network with `model.send` is answered by network-worker.mjs, which is started at the first question. The files that
// modules import stand once for all pages in widget-shared.js, as text: from file:// no module could be fetched.

(() => {
  "use strict";

  const urls = new Map(); // text of a module -> its address: equal modules are imported once

  function addressOf(text) {
    if (!urls.has(text)) {
      const linked = text.replace(/^(import \{[^}]*\} from ")\.\/([\w-]+\.mjs)(?=";$)/gm, (_, begin, name) => begin + addressOf(globalThis.eduShared[name]));
      urls.set(text, URL.createObjectURL(new Blob([linked], { type: "text/javascript" })));
    }
    return urls.get(text);
  }

  const beside = document.currentScript.src;
  const asked = new Map(); // key of a request -> what hears its replies
  let worker = null;
  let requests = 0;

  /** Start the network's worker, or say why that cannot be. */
  function startWorker() {
    if (location.protocol === "file:") {
      throw new Error("Browsers start no network from a folder (file://): open the book over http, for instance with “make serve”. What was drawn beforehand works here too.");
    }
    worker = new Worker(new URL("network-worker.mjs", beside), { type: "module" });
    worker.addEventListener("message", ({ data: { key, ...reply } }) => asked.get(key)?.(reply));
    worker.addEventListener("error", () => {
      worker = null; // the next question tries again
      for (const hear of asked.values()) hear({ kind: "error", message: "The network's worker could not start in this browser." });
      asked.clear();
    });
  }

  /** Ask the network; hear(reply) for each reply. Returns the key with which the request can be dropped. */
  function askNetwork(request, hear) {
    const key = ++requests;
    try {
      if (!worker) startWorker();
      asked.set(key, hear);
      worker.postMessage({ ...request, key });
    } catch (error) {
      setTimeout(() => hear({ kind: "error", message: error.message }));
    }
    return key;
  }

  function dropRequest(key) {
    if (asked.delete(key)) worker?.postMessage({ op: "cancel", key });
  }

  /** The part of anywidget's model that a page can offer: state, news of its changes, and a network's answers. */
  class Model {
    #state;
    #request = { key: null, id: null }; // the latest question to the network
    #listeners = new Map();

    constructor(state) {
      this.#state = { ...state };
    }

    get(name) {
      return this.#state[name];
    }

    set(name, value) {
      if (typeof name === "object") {
        for (const [key, each] of Object.entries(name)) this.set(key, each);
        return;
      }
      if (Object.is(this.#state[name], value)) return;
      this.#state[name] = value;
      this.#emit(`change:${name}`, this, value); // the arguments that JupyterLab's model passes
      this.#emit("change", this);
    }

    on(event, listener) {
      if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
      this.#listeners.get(event).add(listener);
    }

    off(event, listener) {
      if (event === undefined || event === null) this.#listeners.clear();
      else if (listener === undefined || listener === null) this.#listeners.delete(event);
      else this.#listeners.get(event)?.delete(listener);
    }

    save_changes() {} // nobody to save to

    /** Ask the network, { op: "sample", id, ... }, or cancel, { op: "cancel", id }; a new question cancels the last one. */
    send({ op, id, ...request }) {
      if (op === "sample" || id === this.#request.id) dropRequest(this.#request.key);
      if (op !== "sample") return;
      const key = askNetwork({ op, ...request }, ({ images = [], ...reply }) => {
        if (reply.kind === "done" || reply.kind === "error") asked.delete(key);
        if (key === this.#request.key) this.#emit("msg:custom", { id, ...reply }, images.map((image) => new DataView(image.buffer)));
      });
      this.#request = { key, id };
    }

    #emit(event, ...values) {
      for (const listener of [...(this.#listeners.get(event) ?? [])]) listener(...values);
    }
  }

  // A link to a state: page.html#ScoreField?sigma=0.4, and #ScoreField-2?... for the second of its class on the page.
  const links = new Map(); // name in the link -> { node, copy, open }

  function linkFor(host) {
    const alike = [...document.querySelectorAll("div.edu-widget")].filter((each) => each.dataset.widget === host.dataset.widget);
    const name = host.dataset.widget + (alike[0] === host ? "" : `-${alike.indexOf(host) + 1}`);
    const link = {
      node: host,
      open: () => {}, // the widget puts its own here
      async copy(query) {
        history.replaceState(history.state, "", `#${name}?${query}`);
        try {
          await navigator.clipboard.writeText(location.href);
          return "Link copied";
        } catch {
          return "The address bar holds the link"; // plain http has no clipboard
        }
      },
    };
    links.set(name, link);
    return link;
  }

  function followLink() {
    const [, name, query] = location.hash.match(/^#([\w-]+)\?(.*)$/) ?? [];
    if (!links.has(name)) return;
    links.get(name).open(query);
    links.get(name).node.scrollIntoView();
  }

  async function mount(host) {
    const live = document.createElement("div");
    live.className = "edu-live";
    try {
      const state = JSON.parse(host.querySelector("script.edu-state").textContent);
      const module = await import(addressOf(JSON.parse(host.querySelector("script.edu-module").textContent)));
      host.append(live); // before render: a widget may measure its width
      const model = new Model(state);
      await module.default.initialize?.({ model });
      await module.default.render({ model, el: live, link: linkFor(host) });
      host.dataset.mounted = "true"; // the style sheet now hides the static figure on screen
    } catch (error) {
      live.remove();
      const note = document.createElement("p");
      note.className = "edu-error";
      note.setAttribute("role", "status");
      note.textContent = `This interactive figure could not start (${error.message}). The picture shows its initial state.`;
      host.append(note);
      host.dataset.mounted = "false";
    }
  }

  const mountAll = () => Promise.all([...document.querySelectorAll("div.edu-widget:not([data-mounted])")].map(mount)).then(followLink);
  addEventListener("hashchange", followLink);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", mountAll);
  else mountAll();
})();
