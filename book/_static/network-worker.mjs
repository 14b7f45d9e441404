// A trained network in a page: a module Web Worker that answers the widgets' requests with ONNX Runtime Web.
//
// A widget asks `model.send({ id, op: "sample", y: [3], w: 2, sampler: "ddim", evaluations: 10, seed: 1, ... })` and hears
// `model.on("msg:custom", (content, buffers) => ...)`; diffusion_edu/widgets/live.py describes both in full, and answers the
// same requests in JupyterLab. On the site widget-host.js starts this worker at the first request and passes messages on,
// with a `key` of its own, since two widgets may use the same id:
//   in    { op: "sample", key, ...request }       { op: "cancel", key }
//   out   { key, kind: "progress", loaded, total }          bytes; total is null where the host sends compressed files
//         { key, kind: "step", step, of, t, ms, images }    images: [x_t, x0_hat], Uint8Array each
//         { key, kind: "done" }     { key, kind: "error", message }
// Runtime and network are fetched once, at the first request, and lie beside this file.

import { readFacts, toUint8, trajectory } from "./sampling.mjs";

const RUNTIME = new URL("onnxruntime/", import.meta.url);
const NETWORK = new URL("network/mnist-unet.onnx", import.meta.url);

const open = new Set(); // keys of requests that nobody has cancelled
let loading = null; // promise of { network, facts }
let hearLoading = () => {};

/** The bytes of some files, fetched together; report(loaded, total) as they come. */
async function fetchAll(urls, report) {
  let [loaded, total] = [0, 0];
  const answers = await Promise.all(urls.map((url) => fetch(url)));
  for (const answer of answers) {
    if (!answer.ok) throw new Error(`${new URL(answer.url).pathname} could not be loaded (${answer.status})`);
    const size = answer.headers.get("content-encoding") ? null : answer.headers.get("content-length");
    total = total === null || size === null ? null : total + Number(size);
  }
  return Promise.all(answers.map(async (answer) => {
    const parts = [];
    for (const reader = answer.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      report((loaded += value.length), total);
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }));
}

/** Runtime and network, ready to be asked. One thread: a static host cannot allow more. */
async function load() {
  const urls = [new URL("ort-wasm-simd-threaded.wasm", RUNTIME), NETWORK];
  const [ort, [binary, file]] = await Promise.all([
    import(new URL("ort.wasm.min.mjs", RUNTIME)),
    fetchAll(urls, (loaded, total) => hearLoading(loaded, total)),
  ]);
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: RUNTIME.href, wasmBinary: binary.buffer });
  const session = await ort.InferenceSession.create(file, { graphOptimizationLevel: "all" });
  const facts = readFacts(file);
  const ask = async (x, t, y) => {
    const inputs = {
      x: new ort.Tensor("float32", x, [y.length, ...facts.shape]),
      t: new ort.Tensor("float32", t, [y.length]),
      y: new ort.Tensor("int64", BigInt64Array.from(y, BigInt), [y.length]),
    };
    return (await session.run(inputs)).output.data;
  };
  let last = Promise.resolve();
  const network = (...inputs) => (last = last.then(() => ask(...inputs), () => ask(...inputs))); // one call after the other
  return { network, facts };
}

/** Let messages in, such as a cancellation: between two steps. */
const pause = () => new Promise((resume) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => (port1.close(), resume());
  port2.postMessage(null);
});

async function answer({ key, ...request }) {
  open.add(key);
  try {
    hearLoading = (loaded, total) => postMessage({ key, kind: "progress", loaded, total });
    loading ??= load();
    const { network, facts } = await loading.catch((error) => {
      loading = null; // the next click tries again
      throw error;
    });
    if (!open.has(key)) return;
    for await (const { x_t, x0_hat, ...step } of trajectory(network, facts, request)) {
      if (!open.has(key)) return;
      postMessage({ key, kind: "step", ...step, images: [toUint8(x_t), toUint8(x0_hat)] });
      await pause();
    }
    if (open.has(key)) postMessage({ key, kind: "done" });
  } catch (error) {
    if (open.has(key)) postMessage({ key, kind: "error", message: error.message });
  } finally {
    open.delete(key);
  }
}

addEventListener("message", ({ data }) => {
  if (data.op === "sample") answer(data);
  else open.delete(data.key);
});
