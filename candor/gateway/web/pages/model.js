// The model: its classes, its solvers, and what is known about it.
import { Refused } from "./service.js";
import { element, made, percent, state } from "./page.js";
import { modelDetails } from "./calls.js";
import { listedClasses, setRho, solver } from "./question.js";

// What a card may have measured; the first three are named where it has not, too.
const METRICS = {
  accuracy: "Accuracy",
  median_radius: "Median attack radius",
  ece: "Calibration error",
  ece_at_temperature: "Calibration error at its temperature",
  temperature: "Temperature",
  attack_ara: "Attack ARA",
  btr_ara: "BTR ARA",
  btr_ara_at_temperature: "BTR ARA at its temperature",
};
const EXPECTED = ["accuracy", "median_radius", "ece"];
const SHARES = ["accuracy", "ece", "ece_at_temperature"];

export async function chooseModel(name) {
  const away = element("away").value === "" ? null : classKey(Number(element("away").value));
  state.details = await modelDetails(name);
  state.model = name;
  element("model").value = name;
  showCard(state.details);
  const { solvers, classes } = state.details;
  const kept = solvers.includes(solver()) ? solver() : solvers.includes("fast") ? "fast" : solvers[0];
  element("solver").replaceChildren(...solvers.map((one) => new Option(one)));
  element("solver").value = kept;
  setRho(state.details.recommended_rho);
  const names = namesOf(classes);
  element("names").replaceChildren(...names.map((one) => new Option("", one)));
  element("others").hidden = classes.length <= listedClasses();
  element("away").replaceChildren(new Option("every other class", ""), ...names.map((one, index) => new Option(one, index)));
  setAway(away === null ? -1 : names.indexOf(away));
}

// -1: no class in particular.
export function setAway(index) {
  element("away").value = index < 0 ? "" : String(index);
}

// Names that several classes share get their index, as the API reads it: "crane #134".
export function namesOf(classes) {
  const counts = new Map();
  for (const one of classes) counts.set(one, (counts.get(one) ?? 0) + 1);
  return classes.map((one, index) => (counts.get(one) > 1 ? `${one} #${index}` : one));
}

// What finds a class of this model in another one, whose `namesOf` may have it elsewhere.
export const classKey = (index) => namesOf(state.details.classes)[index];

// The class of a listed name or of "#index"; -1 where there is none.
export function classIndex(text) {
  const found = namesOf(state.details.classes).indexOf(text.normalize("NFC"));
  const written = /^#([0-9]{1,9})$/.exec(text);
  if (found >= 0 || written === null) return found;
  return Number(written[1]) < state.details.classes.length ? Number(written[1]) : -1;
}

// The index of a class in a link, as a number.
export function linkedClass(field, text) {
  if (!/^[0-9]{1,9}$/.test(text)) {
    throw new Refused(`The link's ${field}: expected the index of a class, got ${text}.`);
  }
  if (Number(text) >= state.details.classes.length) {
    throw new Refused(`The link's ${field}: expected an index below ${state.details.classes.length}, got ${text}.`);
  }
  return Number(text);
}

// --- the card ------------------------------------------------------------------------------------

export function showCard(details) {
  const { model, metrics, input } = details;
  element("card-title").textContent = `About ${model.name}, version ${model.version}: ${known(metrics)}`;
  element("description").textContent = details.description;
  element("facts").replaceChildren(...[
    ...EXPECTED.filter((name) => !metrics.some((one) => one.name === name)).map((name) => [METRICS[name], "not measured"]),
    ...metrics.map(metricFact),
    ["Network", `${details.architecture}, ${details.classes.length} classes, ${input.width} \u00d7 ${input.height} pixels`],
    ["Weights", `SHA-256 ${model.weights_digest.slice(0, 12)}\u2026`],
  ].map(fact));
  element("unmeasured").hidden = !model.is_accepted_without_data;
  showEngine(details);
}

function known(metrics) {
  const valueOf = (wanted) => metrics.find(({ name }) => name === wanted)?.value;
  const [accuracy, radius] = [valueOf("accuracy"), valueOf("median_radius")];
  return [
    `accuracy ${accuracy === undefined ? "not measured" : percent(accuracy)}`,
    ...(radius === undefined ? [] : [`median radius ${radius.toFixed(4)}`]),
  ].join(", ");
}

function fact([name, value, ...notes]) {
  return made("div", made("dt", name), made("dd", value, ...notes.map((one) => made("small", ` ${one}`))));
}

function metricFact({ name, value, low, high, image_count, data }) {
  const shown = SHARES.includes(name) ? percent : (number) => number.toFixed(4);
  return [METRICS[name] ?? name, shown(value), `${shown(low)} to ${shown(high)}, ${image_count} images of ${data}`];
}

// What searches run on may change while the page is open.
export function showEngine({ engine, precision }) {
  element("engine").textContent = `searches run ${engine}, in ${precision}`;
}
