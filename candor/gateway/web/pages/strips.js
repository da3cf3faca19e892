// Below an explanation: other sizes, other classes, other methods, and another model.
import { element, made, percent, png, reporting, state, tableRow, tile } from "./page.js";
import { beginning, modelDetails, post, postBehind, stop } from "./calls.js";
import { classKey, namesOf } from "./model.js";
import { SIZES, className, setRho, sizeOf } from "./question.js";
import { flipText, paintDifference } from "./result.js";

const SWEEP = [0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2];
const MAX_TARGETS = 32; // of one request
const METHODS = {
  explanation: "Adversarial explanation",
  grad_cam: "Grad-CAM",
  lime: "LIME",
  integrated_gradients: "Integrated gradients",
  gradient: "Gradient (saliency)",
};
const DRAWERS = { sweep: drawSweep, grid: drawGrid, compare: drawCompare, twins: drawTwins };
let explainAgain = () => {};

// Calls `onChosen` when a tile was pressed.
export function listenToStrips(onChosen) {
  explainAgain = onChosen;
  for (const id of Object.keys(DRAWERS)) element(id).addEventListener("toggle", () => refresh(id));
  element("twin").addEventListener("change", () => refresh("twins"));
}

// The models beside the one that is chosen; a plain one first, where there is one.
export function offerTwins() {
  const kept = element("twin").value;
  const names = [...element("model").options].map((one) => one.value).filter((one) => one !== state.model);
  element("twin").replaceChildren(...names.map((one) => new Option(one)));
  element("twin").value = names.find((one) => one === kept) ?? names.find((one) => one.includes("plain")) ?? names[0] ?? "";
  element("twins").hidden = names.length === 0;
}

// What is being drawn belongs to the question before; the new one should not wait for it.
export function stopStrips() {
  for (const id of Object.keys(DRAWERS)) stop(id);
}

// Draws again what is open.
export function refreshStrips() {
  for (const id of Object.keys(DRAWERS)) refresh(id);
}

function refresh(id) {
  if (!element(id).open || element(id).hidden || state.response === null) return;
  const words = element(id).querySelector("[role=status]");
  reporting(async () => {
    const signal = beginning(id);
    element(id).setAttribute("aria-busy", "true");
    words.textContent = words.dataset.busy;
    try {
      await DRAWERS[id](signal);
    } catch (error) {
      // What was drawn before belongs to another question.
      if (error.name !== "AbortError") element(id).querySelector(".strip, tbody").replaceChildren();
      throw error;
    } finally {
      if (!signal.aborted) { // else a later call is busy
        element(id).removeAttribute("aria-busy");
        words.textContent = "";
      }
    }
  });
}

async function drawSweep(signal) {
  const response = await postBehind("/v1/explain", { ...state.asked.request, rhos: SWEEP }, signal, "explanations");
  fillStrip("sweep", response.explanations, (found) => (
    [`${SIZES[found.norm]} ${found.rho}`, () => setRho(found.rho)]
  ));
}

async function drawGrid(signal) {
  const ranked = state.response.predictions_before.map((one) => one.index);
  const classes = state.details.classes;
  const listed = classes.length <= MAX_TARGETS ? [...classes.keys()] : ranked;
  const { request } = state.asked;
  const targets = listed.filter((index) => index !== request.away_from?.index).map((index) => ({ index }));
  const response = await postBehind("/v1/explain", { ...request, targets }, signal, "explanations");
  fillStrip("grid", response.explanations, ({ target }) => [target.name, () => { state.target = target.index; }]);
}

function fillStrip(id, explanations, entry) {
  element(id).querySelector(".strip").replaceChildren(...explanations.map((found) => {
    const [title, select] = entry(found);
    const button = made("button", tile(png(found.image_png), ""), `${title} `, made("span", percent(found.confidence_after)));
    button.addEventListener("click", () => {
      select();
      explainAgain();
    });
    return button;
  }));
}

// --- other methods -------------------------------------------------------------------------------

async function drawCompare(signal) {
  const { targets: [target], rhos: [rho], solver } = state.asked.request;
  const fields = { target, rho, solver };
  const response = await post("/v1/compare", fields, signal, "methods");
  const moved = response.perturbation;
  const { name } = response.explanation.target;
  element("chance").textContent = percent(response.top_share);
  element("moved").textContent = `of RMSE ${moved.rmse.toFixed(4)}
    (${name} ${percent(moved.confidence_before)} \u2192 ${percent(moved.confidence_after)})`;
  element("missing").replaceChildren(...(response.missing ?? []).map((one) => (
    made("li", `${METHODS[one.method] ?? one.method}: ${one.reason}`)
  )));
  element("compare").querySelector("tbody").replaceChildren(...response.methods.map((one) => {
    const title = METHODS[one.method] ?? one.method;
    return tableRow(
      title,
      made("td", tile(png(one.overlay_png), `${title} before the change`)),
      made("td", tile(png(one.perturbed_overlay_png), `${title} after the change`)),
      made("td", percent(one.energy_share)),
      made("td", one.rank_correlation.toFixed(2)),
      made("td", one.cosine.toFixed(2)),
    );
  }));
}

// --- two models ----------------------------------------------------------------------------------

// What the other model is asked: the same image, class, size and region, and the least change that
// changes its mind.
async function drawTwins(signal) {
  const names = [state.model, element("twin").value];
  const rows = await Promise.all(names.map((name) => twinOf(name, signal)));
  element("twins").querySelector("tbody").replaceChildren(...await Promise.all(rows.map(twinRow)));
}

// By name: the same class may have another index there.
async function twinOf(model, signal) {
  const { classes } = await modelDetails(model);
  const names = namesOf(classes);
  const ref = ({ index }) => ({ index: names.indexOf(classKey(index)) });
  const asked = { ...state.asked.request };
  if (asked.away_from) asked.away_from = ref(asked.away_from);
  asked.targets = asked.targets.map(ref);
  asked.top_k = Math.min(asked.top_k, classes.length);
  if ([...asked.targets, asked.away_from ?? { index: 0 }].some(({ index }) => index < 0)) return { model };
  const { region, solver } = asked;
  const [explained, probed] = await Promise.all([
    post("/v1/explain", { ...asked, model }, signal, "explanations"),
    post("/v1/probe", { model, goals: ["attack"], solver, ...(region && { region }) }, signal, "results"),
  ]);
  return { model, explained, probe: probed.results[0] };
}

async function twinRow({ model, explained, probe }) {
  if (!explained) return tableRow(model, made("td", `It has no class ${className(state.target)}.`));
  const [found] = explained.explanations;
  const { name, confidence } = found.predicted_before;
  const before = tile(png(explained.input_png), `What ${model} sees`);
  const after = tile(png(found.image_png), `The explanation of ${model}`);
  await Promise.all([before.decode(), after.decode()]);
  const difference = made("canvas");
  difference.setAttribute("role", "img");
  difference.setAttribute("aria-label", `Signed difference of ${model}`);
  paintDifference(difference, before, after);
  difference.style.width = `${before.width}px`;
  return tableRow(
    model,
    made("td", before, `says ${name} ${percent(confidence)}, ${fallsAt(probe)}`),
    made("td", after, `${found.target.name} ${percent(found.confidence_before)} \u2192 ${percent(found.confidence_after)}`),
    made("td", difference, `${SIZES[found.norm]} ${sizeOf(found).toFixed(4)}`),
    made("td", flipText(found), made("p", found.radius_note)),
  );
}

function fallsAt({ status, radius, lower_bound, falls_to }) {
  if (status === "unresolved") return `still so at RMSE ${(lower_bound ?? 0).toFixed(4)}`;
  return `until RMSE ${radius.toFixed(4)}: ${falls_to.name}`;
}
