// What leaves the page: a link with the whole state, downloads, and commands that ask the same.
import { Refused } from "./service.js";
import { element, png, state } from "./page.js";

const MAX_LINK_CHARS = 60000; // some programs cut longer addresses
const ENDINGS = { "image/jpeg": "jpg", "image/webp": "webp" };
const NOTICE_MILLISECONDS = 1500;
const urlSafe = (base64) => base64.replaceAll("+", "-").replaceAll("/", "_");

// The address no longer describes what is shown.
export function forgetLink() {
  history.replaceState(null, "", location.pathname);
}

export function offer(response) {
  const [found] = response.explanations;
  const asked = state.asked.request;
  const picture = `candor-picture.${ENDINGS[state.image.type] ?? "png"}`;
  const json = new Blob([JSON.stringify(response, null, 2)], { type: "application/json" });
  URL.revokeObjectURL(element("save-json").href);
  element("save-json").href = URL.createObjectURL(json);
  element("save-picture").href = element("picture").src;
  element("save-picture").download = picture;
  element("save-input").href = png(response.input_png);
  element("save-explanation").href = png(found.image_png);
  element("save-difference").href = element("difference").toDataURL("image/png");
  for (const id of ["save-region", "and-region"]) element(id).hidden = !asked.region?.mask;
  if (asked.region?.mask) element("save-region").href = png(asked.region.mask);
  showLines(found, asked, picture);
  showLink(response, found, asked);
}

// --- the link ------------------------------------------------------------------------------------

function showLink(response, found, asked) {
  const link = new URLSearchParams({
    model: state.model, target: found.target.index, rho: found.rho,
    direction: found.direction, solver: found.solver,
    ...(asked.norm && { norm: asked.norm }),
    ...(asked.away_from && { away: asked.away_from.index }),
    ...state.asked.inLink,
  });
  // A region is in pixels of the image as it was sent; without one the model's input is enough.
  const picture = state.photograph ?? urlSafe(asked.region ? element("picture").src.split(",")[1] : response.input_png);
  link.set("picture", picture);
  const isLong = String(link).length > MAX_LINK_CHARS;
  element("link").disabled = isLong;
  element("link").textContent = isLong ? "Too large for a link" : "Copy link";
  if (isLong) forgetLink();
  else history.replaceState(null, "", `#${link}`);
}

export function linkedRho(text) {
  if (!/^[0-9.e-]{1,20}$/.test(text) || !(Number(text) > 0 && Number(text) <= 1)) {
    throw new Refused(`The link's rho: expected a number in (0, 1], got ${text}.`);
  }
  return Number(text);
}

export function linkedImage(encoded) {
  let bytes;
  try {
    bytes = atob(encoded.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    throw new Refused("The link's picture: expected base64, got other text; the link may be cut.");
  }
  return new Blob([Uint8Array.from(bytes, (one) => one.charCodeAt(0))], { type: "image/png" });
}

// --- the lines -----------------------------------------------------------------------------------

function showLines(found, asked, picture) {
  const { region, ...fields } = { model: state.model, ...asked };
  element("line-candor").textContent =
    `candor explain ${picture}${candorOptions(found, asked)} --solver ${found.solver}` +
    ` --name ${state.model} --address ${grpcAddress()} --out candor-explanation`;
  const isPlain = location.protocol === "http:";
  const encoded = `"$(base64 -w0 ${picture})"`;
  const mask = region?.mask ? ' "$(base64 -w0 candor-region.png)"' : "";
  const where = region && { region: region.mask ? { ...region, mask: "%s" } : region };
  const request = JSON.stringify({ ...fields, ...where });
  element("line-curl").textContent =
    `curl ${keyHeader()}-F image=@${picture} ` +
    `-F ${mask ? `"request=$(printf '${request}'${mask})"` : `'request=${request}'`} ${location.origin}/v1/explain`;
  const message = {
    image: { encoded: "%s" }, ...fields, direction: enumName("DIRECTION", found.direction),
    ...(asked.norm && { norm: enumName("NORM", asked.norm) }), ...where,
  };
  element("line-grpcurl").textContent =
    `printf '${JSON.stringify(message)}' ${encoded}${mask} | ` +
    `grpcurl ${isPlain ? "-plaintext " : ""}${keyHeader()}-d @ ${grpcAddress()} candor.v1.CandorService/Explain`;
}

function enumName(kind, value) {
  return `${kind}_${value.replace(".", "_").toUpperCase()}`;
}

function candorOptions(found, { norm, away_from, region }) {
  const { box, mask, outside } = region ?? {};
  return [
    classOption("--target", found.target),
    ` --rho ${found.rho}`,
    found.direction === "against" ? " --against" : "",
    norm ? ` --norm ${norm}` : "",
    away_from ? classOption("--away-from", found.away_from) : "",
    box ? ` --box ${box.x},${box.y},${box.width},${box.height}` : "",
    mask ? " --mask candor-region.png" : "",
    outside ? " --outside" : "",
  ].join("");
}

function classOption(option, { name, index }) {
  const hasPlainName = /^[A-Za-z][\w-]*$/.test(name);
  return hasPlainName ? ` ${option} ${name}` : ` ${option}-index ${index}`;
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
  setTimeout(() => { button.textContent = label; }, NOTICE_MILLISECONDS);
}

export function listenToCopies() {
  element("link").addEventListener("click", () => copy(location.href, element("link"), "Copy link"));
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", () => copy(element(button.dataset.line).textContent, button, "Copy"));
  }
}
