// What every part of the console shares: the state, small helpers, and how failures are shown.

export const SHOWN_PIXELS = 320;
export const TILE_PIXELS = 96;

export const element = (id) => document.getElementById(id);
export const checked = (name) => document.querySelector(`input[name=${name}]:checked`).value;
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
export const png = (base64) => `data:image/png;base64,${base64}`;

// photograph: the name of the one that is shown, or null for an image of the user's.
// asked, response: the question (see `asking`) that the result on the page answers, and the answer.
export const state = {
  model: "", details: null, image: null, photograph: null, target: null, asked: null, response: null,
};

// Where errors of a field of the request are shown: beside what sets it.
const ERROR_PLACES = { region: "region-error", away_from: "away-error", norm: "size-error", rhos: "size-error" };

export function say(text, share = null) {
  element("status").textContent = text;
  element("progress").hidden = share === null;
  element("progress").value = share ?? 0;
  if (share === null) element("preview").hidden = true;
}

// Runs what a person asked for; errors of what was asked before are forgotten.
export function reportingErrors(work) {
  showErrors("", []);
  element("enter-key").hidden = true;
  return reporting(work);
}

// Runs work and shows on the page why it failed; an aborted call shows nothing.
export async function reporting(work) {
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    const retry = error.retrySeconds ? ` Try again in ${Math.ceil(error.retrySeconds)} s.` : "";
    showErrors(`Not done: ${error.message}${retry}`, error.violations ?? []);
    element("enter-key").hidden = !error.needsKey;
    element("model").value = state.model; // what the page shows is still of this one
    say("");
  }
}

function showErrors(text, violations) {
  element("error").textContent = text;
  for (const place of new Set(Object.values(ERROR_PLACES))) element(place).textContent = "";
  for (const { field, description } of violations) {
    const place = ERROR_PLACES[field.split(/[.[]/)[0]];
    if (place) element(place).textContent = `${field}: ${description}`;
  }
}

export function made(kind, ...contents) {
  const one = document.createElement(kind);
  one.append(...contents);
  return one;
}

// A row of a table, its first cell the heading.
export function tableRow(title, ...cells) {
  const row = made("tr", made("th", title), ...cells);
  row.firstChild.scope = "row";
  return row;
}

// Whole multiples keep the image crisp.
export function magnify(image, pixels) {
  const factor = Math.max(1, Math.floor(pixels / image.naturalWidth));
  image.width = image.naturalWidth * factor;
  image.height = image.naturalHeight * factor;
}

export function tile(source, description) {
  const image = new Image();
  image.alt = description;
  image.onload = () => magnify(image, TILE_PIXELS);
  image.src = source;
  return image;
}
