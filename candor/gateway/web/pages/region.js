// The region that may change: a box, or what a brush has painted, over the picture as it was sent.
// Everything here is in pixels of that picture.
import { stop } from "./calls.js";
import { checked, element, say } from "./page.js";
import { boxBetween, boxOf, fillBox, fillStrokes, grownBox, limited, middleBox, outline, shade } from "./shapes.js";

const STEPS = 40; // presses of an arrow key along the longer side
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PAUSE_MILLISECONDS = 300; // a hand that moves on asks nothing yet
const BOX = /^\d{1,5}(,\d{1,5}){3}$/; // column, row, width, height
const STROKES = /^\d{1,5}(,\d{1,5},\d{1,5})+( \d{1,5}(,\d{1,5},\d{1,5})+)*$/;

// Shapes are never changed, so that undo can go back to them; no box is the one in the middle.
let shape = { box: null, strokes: [] };
let earlier = [];
let cursor = [0, 0];
let pressed = null; // where the pointer went down
let isSpaceDown = false;
let settling;
let changed = () => {};

const picture = element("picture");
const board = element("board");
const tool = () => checked("tool");
const isOutside = () => checked("side") === "outside";
const size = () => [picture.naturalWidth, picture.naturalHeight];
const boxNow = () => shape.box ?? middleBox(size());
const edge = () => Math.max(...size());
const step = () => Math.max(1, Math.round(edge() / STEPS));
const brushWidth = () => Math.max(1, Math.round(edge() * Number(element("brush").value) / 100));

// As `region` of a request; null where everything may change.
export function region() {
  if (tool() === "box") return { box: boxNow(), outside: isOutside() };
  if (tool() === "brush") return { mask: maskPng(), outside: isOutside() };
  return null;
}

// In words why there is nothing to ask yet, or an empty text.
export function missingRegion() {
  const isEmpty = tool() === "brush" && shape.strokes.length === 0;
  return isEmpty ? "Nothing is painted yet: paint over the picture." : "";
}

// In words for a title.
export function regionName() {
  const name = { box: "the box", brush: "the painted region" }[tool()];
  return name && `${isOutside() ? "everything but " : ""}${name}`;
}

// White on transparent, of the size of the picture, in base64.
function maskPng() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = size();
  const context = canvas.getContext("2d");
  [context.fillStyle, context.strokeStyle] = ["white", "white"];
  fillShape(context);
  return canvas.toDataURL("image/png").split(",")[1];
}

// --- in links ------------------------------------------------------------------------------------

export function regionInLink() {
  const { x, y, width, height } = boxNow();
  const side = isOutside() ? "outside" : "inside";
  if (tool() === "box") return { box: [x, y, width, height].join(), side };
  if (tool() === "brush") return { strokes: shape.strokes.map((one) => one.join()).join(" "), side };
  return {};
}

// Whether the region of a link could be read; one that does not fit is for the service to refuse.
export function takeRegion(link) {
  const [box, strokes] = [link.get("box"), link.get("strokes")];
  if (!BOX.test(box ?? "0,0,0,0") || !STROKES.test(strokes ?? "0,0,0")) return false;
  forgetRegion();
  check("tool", box ? "box" : strokes ? "brush" : "everywhere");
  check("side", link.get("side") === "outside" ? "outside" : "inside");
  if (box) {
    const [x, y, width, height] = box.split(",").map(Number);
    shape = { ...shape, box: { x, y, width, height } };
  }
  if (strokes) shape = { ...shape, strokes: strokes.split(" ").map((one) => one.split(",").map(Number)) };
  showTool();
  return true;
}

function check(name, value) {
  document.querySelector(`input[name=${name}][value=${value}]`).checked = true;
}

// --- shapes --------------------------------------------------------------------------------------

export function forgetRegion() {
  shape = { box: null, strokes: [] };
  earlier = [];
  letGo();
  check("tool", "everywhere");
  showTool();
}

function remember() {
  earlier.push(shape);
}

// Ends a stroke or a box that is being drawn: what it belongs to is gone.
function letGo() {
  pressed = null;
  isSpaceDown = false;
}

function undo() {
  if (earlier.length === 0) return;
  letGo();
  shape = earlier.pop();
  settle();
}

function clear() {
  remember();
  shape = tool() === "box" ? { ...shape, box: null } : { ...shape, strokes: [] };
  settle();
}

function beginStroke(point) {
  remember();
  shape = { ...shape, strokes: [...shape.strokes, [brushWidth(), ...point]] };
}

function continueStroke(point) {
  const stroke = [...shape.strokes.at(-1), ...point];
  shape = { ...shape, strokes: [...shape.strokes.slice(0, -1), stroke] };
}

// --- drawing -------------------------------------------------------------------------------------

function fillShape(context) {
  if (tool() === "box") fillBox(context, boxNow());
  else fillStrokes(context, shape.strokes);
}

function draw() {
  [board.width, board.height] = [picture.clientWidth, picture.clientHeight];
  if (board.hidden || !picture.naturalWidth) return;
  const context = board.getContext("2d");
  const scale = board.width / picture.naturalWidth;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  shade(context, size(), isOutside(), fillShape);
  const { x, y, width, height } = boxNow();
  if (tool() === "box") outline(context, scale, (path) => path.rect(x, y, width, height));
  // Where the keys move the brush.
  else if (document.activeElement === board) outline(context, scale, (path) => path.arc(...cursor, brushWidth() / 2, 0, 2 * Math.PI));
}

function describe() {
  if (tool() === "box") {
    const { x, y, width, height } = boxNow();
    return `The box is ${width} \u00d7 ${height} pixels, ${x} from the left and ${y} from the top.`;
  }
  const at = `The brush is ${Math.round(cursor[0])} pixels from the left and ${Math.round(cursor[1])} from the top.`;
  const count = shape.strokes.length;
  return `${count === 1 ? "1 stroke is" : `${count} strokes are`} painted. ${at}`;
}

function show() {
  draw();
  element("region-state").textContent = tool() === "everywhere" ? "" : describe();
  element("undo").disabled = earlier.length === 0;
}

// Shown now, and asked for once the hand rests.  What is searched for has another region.
function settle() {
  stop("explain");
  say("Waiting ...", 0);
  show();
  clearTimeout(settling);
  settling = setTimeout(() => changed(), PAUSE_MILLISECONDS);
}

function showTool() {
  const now = tool();
  for (const id of ["board", "region-more"]) element(id).hidden = now === "everywhere";
  for (const one of document.querySelectorAll("[data-tool]")) one.hidden = one.dataset.tool !== now;
  show();
}

// --- hands ---------------------------------------------------------------------------------------

function pointOf(event) {
  const scale = picture.naturalWidth / picture.clientWidth;
  return [
    limited(Math.round(event.offsetX * scale), 0, picture.naturalWidth),
    limited(Math.round(event.offsetY * scale), 0, picture.naturalHeight),
  ];
}

function onPointerDown(event) {
  board.setPointerCapture(event.pointerId);
  pressed = pointOf(event);
  cursor = pressed;
  if (tool() === "brush") beginStroke(pressed);
  else remember();
  show();
}

function onPointerMove(event) {
  if (pressed === null) return;
  cursor = pointOf(event);
  if (tool() === "brush") continueStroke(cursor);
  else shape = { ...shape, box: boxBetween(size(), pressed, cursor) };
  show();
}

function onPointerUp() {
  if (pressed === null) return;
  pressed = null;
  settle();
}

function onKeyDown(event) {
  const isUndo = event.key === "z" && (event.ctrlKey || event.metaKey);
  const arrow = ARROWS[event.key];
  if (isUndo) undo();
  else if (arrow && tool() === "box") moveBox(arrow, event.shiftKey);
  else if (arrow) moveBrush(arrow);
  else if (event.key === " " && tool() === "brush") pressSpace(event.repeat);
  else return;
  event.preventDefault();
}

function moveBox([columns, rows], isSize) {
  remember();
  const { x, y, width, height } = boxNow();
  const [right, down] = [columns * step(), rows * step()];
  const box = isSize ? grownBox(size(), boxNow(), right, down) : boxOf(size(), x + right, y + down, width, height);
  shape = { ...shape, box };
  settle();
}

function moveBrush([columns, rows]) {
  cursor = [
    limited(cursor[0] + columns * step(), 0, picture.naturalWidth),
    limited(cursor[1] + rows * step(), 0, picture.naturalHeight),
  ];
  if (!isSpaceDown) return show();
  continueStroke(cursor);
  settle();
}

function pressSpace(isRepeated) {
  if (isRepeated) return;
  isSpaceDown = true;
  beginStroke(cursor);
  settle();
}

// Calls `onChange` when another region is to be explained.
export function listenToRegion(onChange) {
  changed = onChange;
  picture.addEventListener("load", () => {
    cursor = [Math.round(picture.naturalWidth / 2), Math.round(picture.naturalHeight / 2)];
    showTool();
  });
  for (const one of document.querySelectorAll("input[name=tool]")) {
    one.addEventListener("change", () => { showTool(); settle(); });
  }
  for (const one of document.querySelectorAll("input[name=side]")) one.addEventListener("change", settle);
  element("brush").addEventListener("input", show);
  element("undo").addEventListener("click", undo);
  element("clear").addEventListener("click", clear);
  board.addEventListener("pointerdown", onPointerDown);
  board.addEventListener("pointermove", onPointerMove);
  for (const kind of ["pointerup", "pointercancel"]) board.addEventListener(kind, onPointerUp);
  board.addEventListener("keydown", onKeyDown);
  board.addEventListener("keyup", (event) => { if (event.key === " ") isSpaceDown = false; });
  for (const kind of ["focus", "blur"]) board.addEventListener(kind, () => { isSpaceDown = false; draw(); });
  window.addEventListener("resize", draw);
}
