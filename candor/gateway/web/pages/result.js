// An explanation: the two images, their difference, the confidences and every measure.
import { SHOWN_PIXELS, element, magnify, made, percent, png, tableRow } from "./page.js";
import { SIZES, sizeOf, titleOf } from "./question.js";

// `where`: the region in words, if there is one.
export async function showResult(response, where, signal) {
  const [found] = response.explanations;
  const [before, after] = [element("before"), element("after")];
  before.src = png(response.input_png);
  after.src = png(found.image_png);
  await Promise.all([before.decode(), after.decode()]);
  signal.throwIfAborted();
  magnify(before, SHOWN_PIXELS);
  magnify(after, SHOWN_PIXELS);
  drawDifference(before, after);
  showBars(response.predictions_before, found);
  element("result-title").textContent = titleOf(found, where);
  element("honesty").textContent = found.radius_note;
  element("numbers").textContent = summary(response, found);
  element("measures").replaceChildren(...measuresOf(found).map(([name, value]) => (
    made("div", made("dt", name), made("dd", value))
  )));
  element("result").hidden = false;
}

export function flipText(found) {
  const { name, confidence } = found.predicted_after;
  return `${found.flips ? "yes" : "no"}, it says ${name} ${percent(confidence)}`;
}

function summary(response, found) {
  const parts = [
    `${found.target.name} ${percent(found.confidence_before)} \u2192 ${percent(found.confidence_after)}`,
    `${SIZES[found.norm]} ${sizeOf(found).toFixed(4)} of ${found.rho}`,
    `now predicted: ${found.predicted_after.name} ${percent(found.predicted_after.confidence)}`,
    `${found.steps} steps of solver ${found.solver}${found.from_cache ? ", from the cache" : ""}`,
    `${response.model.name} version ${response.model.version}`,
    ...(response.model.is_accepted_without_data ? ["accepted without data"] : []),
  ];
  return parts.join(" \u00b7 ");
}

// Names and values, in words.
export function measuresOf(found) {
  return [
    ["Changes the decision", flipText(found)],
    ["Pixels that change", `${percent(found.sparsity)} by more than 1/255`],
    ["RMSE", found.rmse.toFixed(4)],
    ...(found.rmse_inside == null ? [] : [["RMSE inside the region", found.rmse_inside.toFixed(4)]]),
    ["Mean change (rho_1)", found.rho_1.toFixed(4)],
    ["Change in L1.5 (rho_1.5)", found.rho_1_5.toFixed(4)],
    ["Largest change (rho_inf)", found.rho_inf.toFixed(4)],
  ];
}

// --- the difference ------------------------------------------------------------------------------

function pixelsOf(image) {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function drawDifference(before, after) {
  const canvas = element("difference");
  const scale = paintDifference(canvas, before, after).toFixed(3);
  canvas.style.width = `${before.width}px`;
  element("scale").textContent = `Signed difference; grey: unchanged, white: +${scale}, black: \u2212${scale}`;
}

// The signed difference of two loaded images around grey; the largest change of a value, in [0, 1].
export function paintDifference(canvas, before, after) {
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
  [canvas.width, canvas.height] = [to.width, to.height];
  canvas.getContext("2d").putImageData(new ImageData(changes, to.width, to.height), 0, 0);
  return largest / 255;
}

// --- the confidences -----------------------------------------------------------------------------

function showBars(before, found) {
  const after = new Map(found.predictions_after.map((one) => [one.index, one.confidence]));
  const rows = new Map(before.map((one) => [one.index, [one.name, one.confidence, after.get(one.index)]]));
  for (const one of found.predictions_after) {
    if (!rows.has(one.index)) rows.set(one.index, [one.name, undefined, one.confidence]);
  }
  rows.set(found.target.index, [found.target.name, found.confidence_before, found.confidence_after]);
  element("bars").tBodies[0].replaceChildren(...[...rows].map(([index, [name, first, last]]) => {
    const row = tableRow(name, barCell(first, "before"), barCell(last, "after"));
    row.classList.toggle("target", index === found.target.index);
    return row;
  }));
}

function barCell(share, kind) {
  if (share === undefined) return made("td", "below the classes shown");
  const bar = made("div");
  bar.className = `bar ${kind}`;
  bar.style.width = `${100 * share}%`;
  return made("td", percent(share), bar);
}
