// The console: calls the REST API like any other client and draws the responses.  The whole state
// is in the address after "#", which browsers do not send to the server.
"use strict";

const SWEEP = [0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2];
const SHOWN_PIXELS = 320;
const TILE_PIXELS = 96;
const BUTTON_CLASSES = 10;
const MAX_TARGETS = 32; // of one request
const MAX_LINK_CHARS = 60000; // of the image; some programs cut longer addresses
const BLINK_MILLISECONDS = 600;
const METHODS = {
  explanation: "Adversarial explanation",
  grad_cam: "Grad-CAM",
  lime: "LIME",
  integrated_gradients: "Integrated gradients",
  gradient: "Gradient (saliency)",
};

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const png = (base64) => `data:image/png;base64,${base64}`;

const state = { model: "", details: null, image: null, isSample: false, target: null, response: null };
const running = new Map();

// --- requests ------------------------------------------------------------------------------------

// A later call of the same name aborts the one before, and with it the work on the server.
function beginning(name) {
  running.get(name)?.abort();
  const controller = new AbortController();
  running.set(name, controller);
  return controller.signal;
}

function questionForm(fields) {
  const form = new FormData();
  form.append("image", state.image);
  form.append("request", JSON.stringify({ model: state.model, ...fields }));
  return form;
}

function post(path, fields, signal, part) {
  const options = { method: "POST", body: questionForm(fields), signal };
  return askObject(path, options, (body) => part in body);
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Refused("The connection ended before the result.");
    });
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const match = /^event: (\w+)\ndata: (.*)$/s.exec(part);
      if (match) yield { name: match[1], data: JSON.parse(match[2]) };
    }
  }
}

// Runs work and shows on the page why it failed; an aborted call shows nothing.
async function reportingErrors(work) {
  element("error").textContent = "";
  element("enter-key").hidden = true;
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    const retry = error.retrySeconds ? ` Try again in ${Math.ceil(error.retrySeconds)} s.` : "";
    element("error").textContent = `Not done: ${error.message}${retry}`;
    element("enter-key").hidden = !error.needsKey;
    element("model").value = state.model; // what the page shows is still of this one
    say("");
  }
}

function say(text, share = null) {
  element("status").textContent = text;
  element("progress").hidden = share === null;
  element("progress").value = share ?? 0;
}

// --- the question --------------------------------------------------------------------------------

const rho = () => Number(element("rho").value);
const direction = () => document.querySelector("input[name=direction]:checked").value;
const solver = () => element("solver").value;
const className = (index) => state.details.classes[index];
const listedClasses = () => Math.min(BUTTON_CLASSES, state.details.classes.length);

function question(targets = [state.target], rhos = [rho()]) {
  return {
    targets: targets.map((index) => ({ index })),
    rhos,
    direction: direction(),
    solver: solver(),
    top_k: listedClasses(),
  };
}

function detailsOf(name) {
  return askObject(`/v1/models/${encodeURIComponent(name)}`, {}, (body) => Array.isArray(body.classes));
}

// What searches run on may change while the page is open.
function showEngine({ engine, precision }) {
  element("engine").textContent = `searches run ${engine}, in ${precision}`;
}

async function chooseModel(name) {
  state.details = await detailsOf(name);
  showEngine(state.details);
  state.model = name;
  element("model").value = name;
  const solvers = state.details.solvers;
  const kept = solvers.includes(solver()) ? solver() : solvers.includes("fast") ? "fast" : solvers[0];
  element("solver").replaceChildren(...solvers.map((one) => new Option(one)));
  element("solver").value = kept;
  setRho(state.details.recommended_rho);
  element("names").replaceChildren(...namesOf(state.details.classes).map((one) => new Option("", one)));
  element("others").hidden = state.details.classes.length <= BUTTON_CLASSES;
  element("unmeasured").hidden = !state.details.model.is_accepted_without_data;
}

// Names that several classes share get their index, as the API reads it: "crane #134".
function namesOf(classes) {
  const counts = new Map();
  for (const one of classes) counts.set(one, (counts.get(one) ?? 0) + 1);
  return classes.map((one, index) => (counts.get(one) > 1 ? `${one} #${index}` : one));
}

// The class of a listed name or of "#index"; -1 where there is none.
function classIndex(text) {
  const found = namesOf(state.details.classes).indexOf(text.normalize("NFC"));
  const written = /^#([0-9]{1,9})$/.exec(text);
  if (found >= 0 || written === null) return found;
  return Number(written[1]) < state.details.classes.length ? Number(written[1]) : -1;
}

function chooseWritten(isWhole) {
  const text = element("other").value.trim();
  const index = classIndex(text);
  element("unknown").textContent = isWhole && text && index < 0 ? `No class is called ${text}.` : "";
  if (index >= 0 && index !== state.target) choose(index);
}

function setRho(value) {
  element("rho").value = value;
  element("rho-value").textContent = Number(element("rho").value).toFixed(3);
}

function setImage(blob, isSample) {
  state.image = blob;
  state.isSample = isSample;
  state.target = null;
  showPicture();
}

function showPicture() {
  const reader = new FileReader();
  reader.onload = () => { element("picture").src = reader.result; };
  reader.readAsDataURL(state.image);
}

async function sample() {
  const response = await ask("/pages/sample.png");
  if (response.headers.get("content-type") !== "image/png") throw foreign(response);
  setImage(await response.blob(), true);
}

// The address no longer describes what is shown.
function forgetLink() {
  history.replaceState(null, "", location.pathname);
}

async function predict() {
  element("result").hidden = true;
  element("classes").replaceChildren();
  element("prediction").textContent = "";
  running.get("explain")?.abort();
  const signal = beginning("predict");
  say("Predicting ...");
  const response = await post("/v1/predict", { top_k: listedClasses() }, signal, "predictions");
  const [first] = response.predictions;
  element("prediction").textContent = `The model predicts ${first.name}, ${percent(first.confidence)}.`;
  element("classes").replaceChildren(...response.predictions.map(classButton));
  say("");
}

function classButton({ index, name, confidence }) {
  const button = document.createElement("button");
  const share = document.createElement("small");
  share.textContent = percent(confidence);
  button.append(`${name} `, share);
  button.dataset.index = index;
  button.addEventListener("click", () => choose(index));
  return button;
}

function choose(index) {
  state.target = index;
  element("other").value = namesOf(state.details.classes)[index];
  element("unknown").textContent = "";
  reportingErrors(explain);
}

// --- the explanation -----------------------------------------------------------------------------

async function explain() {
  if (state.target === null) return;
  for (const button of element("classes").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.index) === state.target));
  }
  const signal = beginning("explain");
  say("Waiting ...", 0);
  try {
    await explainWith(await ask("/v1/explain/stream", { method: "POST", body: questionForm(question()), signal }));
  } catch (error) {
    // Neither an earlier result nor a preview may pass for the answer to this question.
    if (error.name !== "AbortError") forgetResult();
    throw error;
  }
}

async function explainWith(response) {
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) throw foreign(response);
  for await (const { name, data } of events(response)) {
    if (name === "progress") showProgress(data);
    else if (name === "result") return show(data);
    else throw new Refused(`${data.error.message} (${data.error.code}, request ${data.error.request_id})`);
  }
  throw new Refused("The connection ended before the result.");
}

function forgetResult() {
  element("result").hidden = true;
  state.response = null;
  showPicture();
}

function showProgress({ step, step_count, best_confidence, queue_position, preview_png }) {
  if (queue_position > 0) return say(`Position ${queue_position} in the queue`, 0);
  const so_far = best_confidence === null ? "" : `, ${className(state.target)} ${percent(best_confidence)} so far`;
  say(`Step ${step} of ${step_count}${so_far}`, step / step_count);
  if (preview_png) element("picture").src = png(preview_png);
}

async function show(response) {
  state.response = response;
  const [found] = response.explanations;
  const sign = found.direction === "for" ? "more" : "less";
  element("result-title").textContent = `What makes it ${sign} ${found.target.name}`;
  element("before").src = png(response.input_png);
  element("after").src = png(found.image_png);
  element("picture").src = png(response.input_png);
  await Promise.all(["before", "after"].map((id) => element(id).decode()));
  magnify(element("before"), SHOWN_PIXELS);
  magnify(element("after"), SHOWN_PIXELS);
  drawDifference(element("before"), element("after"));
  showBars(response.predictions_before, found);
  element("numbers").textContent = summary(response, found);
  element("result").hidden = false;
  say(found.status === "found" ? "Done." : `Nothing found that makes it ${sign} ${found.target.name}.`);
  await offer(response);
  showEngine(await detailsOf(state.model));
  for (const id of ["sweep", "grid", "compare"]) refresh(id);
}

function summary(response, found) {
  const parts = [
    `${found.target.name} ${percent(found.confidence_before)} \u2192 ${percent(found.confidence_after)}`,
    `RMSE ${found.rmse.toFixed(4)} of ${found.rho}`,
    `now predicted: ${found.predicted_after.name} ${percent(found.predicted_after.confidence)}`,
    `${found.steps} steps of solver ${found.solver}${found.from_cache ? ", from the cache" : ""}`,
    `${response.model.name} version ${response.model.version}`,
    ...(response.model.is_accepted_without_data ? ["accepted without data"] : []),
  ];
  return parts.join(" \u00b7 ");
}

// Whole multiples keep the image crisp.
function magnify(image, pixels) {
  const factor = Math.max(1, Math.floor(pixels / image.naturalWidth));
  image.width = image.naturalWidth * factor;
  image.height = image.naturalHeight * factor;
}

function pixelsOf(image) {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function drawDifference(before, after) {
  const [from, to] = [pixelsOf(before).data, pixelsOf(after)];
  const changes = new Uint8ClampedArray(from.length);
  let largest = 0;
  for (let place = 0; place < from.length; place += 1) {
    if (place % 4 !== 3) largest = Math.max(largest, Math.abs(to.data[place] - from[place]));
  }
  for (let place = 0; place < from.length; place += 1) {
    const change = (to.data[place] - from[place]) / (largest || 1);
    changes[place] = place % 4 === 3 ? 255 : Math.round(127.5 + 127.5 * change);
  }
  const canvas = element("difference");
  canvas.width = to.width;
  canvas.height = to.height;
  canvas.getContext("2d").putImageData(new ImageData(changes, to.width, to.height), 0, 0);
  canvas.style.width = `${before.width}px`;
  const scale = (largest / 255).toFixed(3);
  element("scale").textContent = `Signed difference; grey: unchanged, white: +${scale}, black: \u2212${scale}`;
}

function showBars(before, found) {
  const after = new Map(found.predictions_after.map((one) => [one.index, one.confidence]));
  const rows = new Map(before.map((one) => [one.index, [one.name, one.confidence, after.get(one.index)]]));
  for (const one of found.predictions_after) {
    if (!rows.has(one.index)) rows.set(one.index, [one.name, undefined, one.confidence]);
  }
  rows.set(found.target.index, [found.target.name, found.confidence_before, found.confidence_after]);
  element("bars").tBodies[0].replaceChildren(...[...rows].map(([index, [name, first, last]]) => {
    const row = document.createElement("tr");
    row.classList.toggle("target", index === found.target.index);
    row.append(cell("th", name), barCell(first, "before"), barCell(last, "after"));
    row.firstChild.scope = "row";
    return row;
  }));
}

function cell(kind, ...contents) {
  const made = document.createElement(kind);
  made.append(...contents);
  return made;
}

function barCell(share, kind) {
  if (share === undefined) return cell("td", "below the classes shown");
  const bar = cell("div");
  bar.className = `bar ${kind}`;
  bar.style.width = `${100 * share}%`;
  return cell("td", percent(share), bar);
}

// --- sweep, grid, other methods ------------------------------------------------------------------

const DRAWERS = { sweep: drawSweep, grid: drawGrid, compare: drawCompare };

function refresh(id) {
  if (!element(id).open || state.response === null) return;
  reportingErrors(async () => {
    element(id).setAttribute("aria-busy", "true");
    try {
      await DRAWERS[id](beginning(id));
    } catch (error) {
      // What was drawn before belongs to another question.
      if (error.name !== "AbortError") element(id).querySelector(".strip, tbody").replaceChildren();
      throw error;
    } finally {
      element(id).removeAttribute("aria-busy");
    }
  });
}

async function drawSweep(signal) {
  const response = await post("/v1/explain", question([state.target], SWEEP), signal, "explanations");
  fillStrip("sweep", response.explanations, (found) => [`rho ${found.rho}:`, () => setRho(found.rho)]);
}

async function drawGrid(signal) {
  const ranked = state.response.predictions_before.map((one) => one.index);
  const classes = state.details.classes;
  const targets = classes.length <= MAX_TARGETS ? [...classes.keys()] : ranked;
  const response = await post("/v1/explain", question(targets), signal, "explanations");
  fillStrip("grid", response.explanations, (found) => [found.target.name, () => { state.target = found.target.index; }]);
}

function fillStrip(id, explanations, entry) {
  element(id).querySelector(".strip").replaceChildren(...explanations.map((found) => {
    const [title, select] = entry(found);
    const image = new Image();
    image.alt = "";
    image.onload = () => magnify(image, TILE_PIXELS);
    image.src = png(found.image_png);
    const button = cell("button", image, `${title} ${percent(found.confidence_after)}`);
    button.addEventListener("click", () => {
      select();
      reportingErrors(explain);
    });
    return button;
  }));
}

async function drawCompare(signal) {
  const fields = { target: { index: state.target }, rho: rho(), solver: solver() };
  say("Computing every method ...");
  const response = await post("/v1/compare", fields, signal, "methods");
  say("");
  const moved = response.perturbation;
  const { name } = response.explanation.target;
  element("chance").textContent = percent(response.top_share);
  element("moved").textContent = `of RMSE ${moved.rmse.toFixed(4)}
    (${name} ${percent(moved.confidence_before)} \u2192 ${percent(moved.confidence_after)})`;
  element("missing").replaceChildren(...(response.missing ?? []).map((one) => (
    cell("li", `${METHODS[one.method] ?? one.method}: ${one.reason}`)
  )));
  element("compare").querySelector("tbody").replaceChildren(...response.methods.map((one) => {
    const title = METHODS[one.method] ?? one.method;
    const row = cell("tr", cell("th", title));
    row.firstChild.scope = "row";
    for (const [base64, when] of [[one.overlay_png, "before"], [one.perturbed_overlay_png, "after"]]) {
      const image = new Image();
      image.alt = `${title} ${when} the change`;
      image.onload = () => magnify(image, TILE_PIXELS);
      image.src = png(base64);
      row.append(cell("td", image));
    }
    row.append(cell("td", percent(one.energy_share)));
    row.append(cell("td", one.rank_correlation.toFixed(2)), cell("td", one.cosine.toFixed(2)));
    return row;
  }));
}

// --- link, downloads, lines ----------------------------------------------------------------------

async function offer(response) {
  const [found] = response.explanations;
  element("save-input").href = png(response.input_png);
  element("save-explanation").href = png(found.image_png);
  element("save-difference").href = element("difference").toDataURL("image/png");
  const json = new Blob([JSON.stringify(response, null, 2)], { type: "application/json" });
  URL.revokeObjectURL(element("save-json").href);
  element("save-json").href = URL.createObjectURL(json);
  showLines(found);
  const link = new URLSearchParams({
    model: state.model, target: found.target.index, rho: found.rho,
    direction: found.direction, solver: found.solver,
  });
  const isLong = response.input_png.length > MAX_LINK_CHARS;
  if (state.isSample) link.set("picture", "sample");
  else if (!isLong) link.set("picture", response.input_png.replaceAll("+", "-").replaceAll("/", "_"));
  element("link").disabled = isLong && !state.isSample;
  element("link").textContent = element("link").disabled ? "Image too large for a link" : "Copy link";
  history.replaceState(null, "", `#${link}`);
}

function showLines(found) {
  const { name, index } = found.target;
  const hasPlainName = /^[A-Za-z][\w-]*$/.test(name);
  const isPlain = location.protocol === "http:";
  const against = found.direction === "against" ? " --against" : "";
  element("line-candor").textContent =
    `candor explain candor-input.png ${hasPlainName ? `--target ${name}` : `--target-index ${index}`} --rho ${found.rho}${against}` +
    ` --solver ${found.solver} --name ${state.model} --address ${grpcAddress()} --out candor-explanation`;
  const fields = {
    model: state.model, targets: [{ index }], rhos: [found.rho],
    direction: found.direction, solver: found.solver,
  };
  element("line-curl").textContent =
    `curl ${keyHeader()}-F image=@candor-input.png -F 'request=${JSON.stringify(fields)}' ` +
    `${location.origin}/v1/explain`;
  const message = {
    image: { encoded: "%s" }, ...fields, direction: `DIRECTION_${found.direction.toUpperCase()}`,
  };
  element("line-grpcurl").textContent =
    `printf '${JSON.stringify(message)}' "$(base64 -w0 candor-input.png)" | ` +
    `grpcurl ${isPlain ? "-plaintext " : ""}${keyHeader()}-d @ ${grpcAddress()} candor.v1.CandorService/Explain`;
}

function keyHeader() {
  return element("console").dataset.needsKeys === "1" ? '-H "authorization: Bearer $CANDOR_KEY" ' : "";
}

function grpcAddress() {
  return `${location.hostname}:${element("console").dataset.grpcPort}`;
}

// Browsers offer the clipboard only over HTTPS and on the local machine.
async function copy(text, button, label) {
  const isCopied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  button.textContent = isCopied ? "Copied" : "Please copy it yourself";
  setTimeout(() => { button.textContent = label; }, 1500);
}

// The state in the address, or the sample with the default model.
async function restore() {
  const link = new URLSearchParams(location.hash.slice(1));
  await chooseModel(link.get("model") ?? element("model").value);
  const encoded = link.get("picture");
  if (encoded === null || encoded === "sample") await sample();
  else setImage(imageOf(encoded), false);
  await predict();
  if (!link.has("target")) return;
  if (link.has("rho")) setRho(rhoOf(link.get("rho")));
  if (state.details.solvers.includes(link.get("solver"))) element("solver").value = link.get("solver");
  const sign = document.querySelector(`input[name=direction][value="${CSS.escape(link.get("direction") ?? "for")}"]`);
  if (sign) sign.checked = true;
  const index = link.get("target");
  if (!/^[0-9]{1,9}$/.test(index)) {
    throw new Refused(`The link's target: expected the index of a class, got ${index}.`);
  }
  if (Number(index) >= state.details.classes.length) {
    throw new Refused(`The link's target: expected an index below ${state.details.classes.length}, got ${index}.`);
  }
  state.target = Number(index);
  await explain();
}

function rhoOf(text) {
  if (!/^[0-9.e-]{1,20}$/.test(text) || !(Number(text) > 0 && Number(text) <= 1)) {
    throw new Refused(`The link's rho: expected a number in (0, 1], got ${text}.`);
  }
  return Number(text);
}

function imageOf(encoded) {
  let bytes;
  try {
    bytes = atob(encoded.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    throw new Refused("The link's picture: expected base64, got other text; the link may be cut.");
  }
  return new Blob([Uint8Array.from(bytes, (one) => one.charCodeAt(0))], { type: "image/png" });
}

// --- input ---------------------------------------------------------------------------------------

function take(files) {
  if (files.length === 0) return;
  forgetLink();
  setImage(files[0], false);
  reportingErrors(predict);
}

function setBlinking(isOn) {
  element("blink").setAttribute("aria-pressed", String(isOn));
  clearInterval(setBlinking.timer);
  element("after").hidden = false;
  if (isOn) {
    setBlinking.timer = setInterval(() => { element("after").hidden = !element("after").hidden; }, BLINK_MILLISECONDS);
  }
}

function listen() {
  element("file").addEventListener("change", (event) => take(event.target.files));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      element("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  element("sample").addEventListener("click", () => reportingErrors(async () => {
    forgetLink();
    await sample();
    await predict();
  }));
  element("model").addEventListener("change", () => reportingErrors(async () => {
    const kept = state.target;
    await chooseModel(element("model").value);
    await predict();
    state.target = kept !== null && kept < state.details.classes.length ? kept : null;
    await explain();
  }));
  element("other").addEventListener("input", (event) => {
    if (event.inputType === "insertReplacementText" || !event.inputType) chooseWritten(false); // of the list
  });
  element("other").addEventListener("change", () => chooseWritten(true));
  element("rho").addEventListener("input", () => setRho(rho()));
  for (const changed of [element("rho"), element("solver"), ...document.querySelectorAll("input[name=direction]")]) {
    changed.addEventListener("change", () => reportingErrors(explain));
  }
  element("reveal").addEventListener("input", () => {
    element("after").style.clipPath = `inset(0 ${100 - Number(element("reveal").value)}% 0 0)`;
  });
  element("blink").addEventListener("click", () => {
    setBlinking(element("blink").getAttribute("aria-pressed") !== "true");
  });
  for (const id of Object.keys(DRAWERS)) element(id).addEventListener("toggle", () => refresh(id));
  element("link").addEventListener("click", () => copy(location.href, element("link"), "Copy link"));
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", () => copy(element(button.dataset.line).textContent, button, "Copy"));
  }
  window.addEventListener("hashchange", () => reportingErrors(restore));
}

listen();
if (element("model").options.length > 0) reportingErrors(restore);
