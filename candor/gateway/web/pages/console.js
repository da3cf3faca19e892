// The console: calls the REST API like any other client and draws the responses.  The whole state
// is in the address after "#", which browsers do not send to the server.
import { Refused, ask, foreign, refused } from "./service.js";
import { element, made, percent, png, reportingErrors, say, state } from "./page.js";
import { beginning, events, modelDetails, post, questionForm, stop } from "./calls.js";
import { asking, awayFrom, className, listedClasses, rho, setRho } from "./question.js";
import { forgetRegion, listenToRegion, missingRegion, takeRegion } from "./region.js";
import { chooseModel, classIndex, classKey, linkedClass, namesOf, setAway, showEngine } from "./model.js";
import { showResult } from "./result.js";
import { listenToStrips, offerTwins, refreshStrips, stopStrips } from "./strips.js";
import { forgetLink, linkedImage, linkedRho, listenToCopies, offer } from "./link.js";

const SMALL_PIXELS = 160; // smaller pictures are shown with crisp pixels
const BLINK_MILLISECONDS = 600;

// --- the picture ---------------------------------------------------------------------------------

async function setImage(blob, photograph = null) {
  say("Opening the image ...");
  state.image = blob;
  state.photograph = photograph;
  state.target = null;
  forgetRegion();
  for (const one of document.querySelectorAll("#photographs button")) {
    one.setAttribute("aria-pressed", String(one.dataset.name === photograph));
  }
  const picture = element("picture");
  picture.src = await dataUrl(blob);
  await picture.decode().catch(() => {}); // the service says what is wrong with it
  fitPicture(picture);
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Refused("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

// Its longer side is as long as the page has room for.
function fitPicture(picture) {
  const [width, height] = [picture.naturalWidth || 1, picture.naturalHeight || 1];
  picture.style.setProperty("--share", String(Math.min(1, width / height)));
  picture.classList.toggle("small", Math.max(width, height) <= SMALL_PIXELS);
}

async function setPhotograph(name) {
  say("Opening the photograph ...");
  const button = document.querySelector(`#photographs button[data-name="${CSS.escape(name)}"]`);
  const response = await ask(button.querySelector("img").src);
  if (response.headers.get("content-type") !== "image/jpeg") throw foreign(response);
  await setImage(await response.blob(), name);
}

// --- what it is ----------------------------------------------------------------------------------

async function predict() {
  element("result").hidden = true;
  element("classes").replaceChildren();
  element("prediction").textContent = "";
  stop("explain");
  stopStrips();
  const signal = beginning("predict");
  say("Asking the model what it sees ...");
  const { predictions } = await post("/v1/predict", { top_k: listedClasses() }, signal, "predictions");
  const [first, second] = predictions;
  const runnerUp = second ? ` The runner-up is ${second.name}, ${percent(second.confidence)}.` : "";
  element("prediction").textContent = `The model predicts ${first.name}, ${percent(first.confidence)}.${runnerUp}`;
  element("classes").replaceChildren(...predictions.map(classButton));
  say("");
  state.target ??= (predictions.slice(1).find(({ index }) => index !== awayFrom()) ?? first).index;
}

function classButton({ index, name, confidence }) {
  const button = made("button", `${name} `, made("small", percent(confidence)));
  button.dataset.index = index;
  button.addEventListener("click", () => choose(index));
  return button;
}

function choose(index) {
  state.target = index;
  element("other").value = classKey(index);
  element("unknown").textContent = "";
  reportingErrors(explain);
}

function chooseWritten(isWhole) {
  const text = element("other").value.trim();
  const index = classIndex(text);
  element("unknown").textContent = isWhole && text && index < 0 ? `No class is called ${text}.` : "";
  if (index >= 0 && index !== state.target) choose(index);
}

// --- what would change it ------------------------------------------------------------------------

async function explain() {
  if (state.target === null) return;
  for (const button of element("classes").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.index) === state.target));
  }
  if (missingRegion()) {
    element("region-error").textContent = missingRegion();
    say("");
    return;
  }
  stopStrips();
  const signal = beginning("explain");
  say("Waiting ...", 0);
  const asked = asking();
  try {
    const options = { method: "POST", body: questionForm(asked.request), signal };
    await show(asked, await answered(await ask("/v1/explain/stream", options)), signal);
  } catch (error) {
    // An earlier result may not pass for the answer to this question.
    if (error.name !== "AbortError") forgetResult();
    throw error;
  }
}

async function answered(response) {
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) throw foreign(response);
  for await (const { name, data } of events(response)) {
    if (name === "progress") showProgress(data);
    else if (name === "result") return data;
    else throw refused(data.error);
  }
  throw new Refused("The connection ended before the result.");
}

function forgetResult() {
  element("result").hidden = true;
  state.response = null;
}

function showProgress({ step, step_count, best_confidence, queue_position, preview_png }) {
  if (queue_position > 0) return say(`Waiting: number ${queue_position} in the queue.`, 0);
  const reached = best_confidence === null ? "" : `: ${className(state.target)} is at ${percent(best_confidence)} so far`;
  say(`Searching, step ${step} of ${step_count}${reached}.`, step / step_count);
  element("preview").hidden = !preview_png;
  if (preview_png) element("preview").src = png(preview_png);
}

// Ends with an AbortError where something newer has been asked meanwhile.
async function show(asked, response, signal) {
  Object.assign(state, { asked, response });
  const [found] = response.explanations;
  await showResult(response, asked.where, signal);
  const sign = found.direction === "for" ? "more" : "less";
  say(found.status === "found" ? "Done." : `Nothing found that makes it ${sign} ${found.target.name}.`);
  offer(response);
  showEngine(await modelDetails(state.model));
  signal.throwIfAborted();
  refreshStrips();
}

// --- the state in the address --------------------------------------------------------------------

// The state in the address, or the first photograph with the default model; explained at once.
async function restore() {
  const link = new URLSearchParams(location.hash.slice(1));
  await chooseModel(link.get("model") ?? element("model").value);
  offerTwins();
  const photographs = [...document.querySelectorAll("#photographs button")].map((one) => one.dataset.name);
  const picture = link.get("picture") ?? photographs[0];
  if (photographs.includes(picture)) await setPhotograph(picture);
  else await setImage(linkedImage(picture));
  await predict();
  restoreQuestion(link);
  await explain();
}

function restoreQuestion(link) {
  if (link.has("rho")) setRho(linkedRho(link.get("rho")));
  restoreChoice("solver", link.get("solver"));
  restoreChoice("norm", link.get("norm") ?? "l2");
  const sign = document.querySelector(`input[name=direction][value="${CSS.escape(link.get("direction") ?? "for")}"]`);
  if (sign) sign.checked = true;
  setAway(link.has("away") ? linkedClass("away", link.get("away")) : -1);
  if (!takeRegion(link)) {
    throw new Refused("The link's region: expected a box or strokes in whole numbers; the link may be cut.");
  }
  if (link.has("target")) state.target = linkedClass("target", link.get("target"));
}

function restoreChoice(id, value) {
  if ([...element(id).options].some((one) => one.value === value)) element(id).value = value;
}

// --- input ---------------------------------------------------------------------------------------

function take(files) {
  if (files.length === 0) return;
  forgetLink();
  reportingErrors(async () => {
    await setImage(files[0]);
    await predict();
    await explain();
  });
}

// The same class, by its name, where the other model has it.
async function changeModel() {
  say("Asking about the model ...");
  const kept = state.target === null ? null : classKey(state.target);
  await chooseModel(element("model").value);
  offerTwins();
  const index = kept === null ? -1 : namesOf(state.details.classes).indexOf(kept);
  state.target = index < 0 ? null : index;
  await predict();
  await explain();
}

function setBlinking(isOn) {
  element("blink").setAttribute("aria-pressed", String(isOn));
  clearInterval(setBlinking.timer);
  element("after").hidden = false;
  if (isOn) {
    setBlinking.timer = setInterval(() => { element("after").hidden = !element("after").hidden; }, BLINK_MILLISECONDS);
  }
}

function listenToPictures() {
  element("file").addEventListener("change", (event) => take(event.target.files));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      element("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  for (const button of document.querySelectorAll("#photographs button")) {
    button.addEventListener("click", () => reportingErrors(async () => {
      forgetLink();
      await setPhotograph(button.dataset.name);
      await predict();
      await explain();
    }));
  }
}

function listenToQuestion() {
  element("model").addEventListener("change", () => reportingErrors(changeModel));
  element("other").addEventListener("input", (event) => {
    if (event.inputType === "insertReplacementText" || !event.inputType) chooseWritten(false); // of the list
  });
  element("other").addEventListener("change", () => chooseWritten(true));
  element("rho").addEventListener("input", () => setRho(rho()));
  const choices = ["rho", "solver", "norm", "away"].map(element);
  for (const changed of [...choices, ...document.querySelectorAll("input[name=direction]")]) {
    changed.addEventListener("change", () => reportingErrors(explain));
  }
  listenToRegion(() => reportingErrors(explain));
}

function listenToResult() {
  element("reveal").addEventListener("input", () => {
    element("after").style.clipPath = `inset(0 ${100 - Number(element("reveal").value)}% 0 0)`;
  });
  element("blink").addEventListener("click", () => {
    setBlinking(element("blink").getAttribute("aria-pressed") !== "true");
  });
  listenToStrips(() => reportingErrors(explain));
  listenToCopies();
}

listenToPictures();
listenToQuestion();
listenToResult();
window.addEventListener("hashchange", () => reportingErrors(restore));
if (element("model").options.length > 0) reportingErrors(restore);
