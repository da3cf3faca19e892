// What is asked: class, direction, contrast, size, norm, region and solver, and its words.
import { checked, element, state } from "./page.js";
import { region, regionInLink, regionName } from "./region.js";

const BUTTON_CLASSES = 10;
// The names of rho in each norm; rho_2 is the RMSE.
export const SIZES = { l2: "RMSE", "l1.5": "rho_1.5", l1: "rho_1", linf: "rho_inf" };

export const rho = () => Number(element("rho").value);
export const direction = () => checked("direction");
export const solver = () => element("solver").value;
export const norm = () => element("norm").value;
export const className = (index) => state.details.classes[index];
export const listedClasses = () => Math.min(BUTTON_CLASSES, state.details.classes.length);

export function setRho(value) {
  element("rho").value = value;
  element("rho-value").textContent = Number(element("rho").value).toFixed(3);
}

// The class that the target is set against, or null.
export function awayFrom() {
  const { value } = element("away");
  return value === "" ? null : Number(value);
}

// What is asked now: the request, the region in words and as it stands in links.
export function asking() {
  return { request: request(), where: regionName(), inLink: regionInLink() };
}

// Without the defaults of the contract, so that the commands to copy are short.
function request() {
  const away = awayFrom();
  const where = region();
  return {
    targets: [{ index: state.target }],
    rhos: [rho()],
    direction: direction(),
    solver: solver(),
    top_k: listedClasses(),
    ...(norm() === "l2" ? {} : { norm: norm() }),
    ...(away === null ? {} : { away_from: { index: away } }),
    ...(where === null ? {} : { region: where }),
  };
}

// "What makes it more dog and less cat, changing only the box"
export function titleOf(found, where) {
  const [sign, other] = found.direction === "for" ? ["more", "less"] : ["less", "more"];
  const contrast = found.away_from ? ` and ${other} ${found.away_from.name}` : "";
  return `What makes it ${sign} ${found.target.name}${contrast}${where ? `, changing only ${where}` : ""}`;
}

// Size of a change in the norm that limits it.
export function sizeOf(found) {
  return { l2: found.rmse, "l1.5": found.rho_1_5, l1: found.rho_1, linf: found.rho_inf }[found.norm];
}
