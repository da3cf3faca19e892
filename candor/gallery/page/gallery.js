"use strict";
// Filters and sorts over all pages.  Rows come from gallery-index.js; nothing is fetched, and every
// text of theirs is set as text, never as HTML.

const ENTRIES_PER_PAGE = 60;
const rows = globalThis.galleryRows;
const form = document.querySelector("#filters");
const cards = document.querySelector("#cards");
const count = document.querySelector("#count");
const template = document.querySelector("#card").content.querySelector("li");
const ownPage = Number(document.querySelector("main").dataset.page);

/** What the form asks for, without what is empty. */
function asked() {
  const params = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) params.set(name, value);
  return params;
}

function bound(params, name, otherwise) {
  return params.has(name) ? Number(params.get(name)) / 100 : otherwise;
}

function isWanted(params) {
  const choices = [...form.querySelectorAll("[data-choice]")].map((one) => one.name);
  const wanted = choices.filter((name) => params.has(name)).map((name) => [name, params.get(name)]);
  const name = (params.get("name") ?? "").toLowerCase();
  const isBounded = params.has("from") || params.has("to");
  const from = bound(params, "from", -Infinity), to = bound(params, "to", Infinity);
  return (row) => {
    if (wanted.some(([field, value]) => !row.choices[field].includes(value))) return false;
    if (!row.texts.name.toLowerCase().includes(name)) return false;
    const share = row.numbers.confidence;
    return !isBounded || (share !== null && from <= share && share <= to);
  };
}

/** Rows without the number come last in both directions; equal ones stay as listed. */
function inOrder(found, sort) {
  if (!sort) return found;
  const sign = sort.startsWith("-") ? -1 : 1;
  const number = (row) => row.numbers[sort.replace("-", "")];
  const known = found.filter((row) => number(row) !== null);
  const unknown = found.filter((row) => number(row) === null);
  return [...known.sort((one, other) => sign * (number(one) - number(other))), ...unknown];
}

function cardOf(row) {
  const card = template.cloneNode(true);
  for (const element of card.querySelectorAll("[data-text]")) {
    element.textContent = row.texts[element.dataset.text];
    element.hidden = !element.textContent;
  }
  for (const figure of card.querySelectorAll("[data-side]")) {
    const side = figure.dataset.side;
    figure.hidden = !row.images[side];
    figure.querySelector("a").href = row.images[side];
    Object.assign(figure.querySelector("img"), { alt: row.alts[side], src: row.images[side] });
  }
  const facts = card.querySelector("dl");
  for (const [term, value] of row.facts) {
    const words = document.createElement("bdi");
    words.textContent = value;
    facts.append(document.createElement("dt"), document.createElement("dd"));
    facts.lastChild.previousSibling.textContent = term;
    facts.lastChild.append(words);
  }
  return card;
}

const fileOf = (page) =>
  page === 1 ? "index.html" : `page-${String(page).padStart(4, "0")}.html`;

/** A page of everything is a file; a page of a choice is the part of the address after "#". */
function addressOf(params, page) {
  if (![...params].length) return fileOf(page);
  const whole = new URLSearchParams(params);
  whole.set("page", page);
  return `#${whole}`;
}

function setPager(params, page, last) {
  const pages = { First: 1, Previous: page - 1, Next: page + 1, Last: last };
  for (const link of document.querySelectorAll("[data-page-link]")) {
    const words = link.dataset.pageLink;
    link.hidden = words === "First" || words === "Previous" ? page <= 1 : page >= last;
    link.href = addressOf(params, pages[words]);
  }
}

/** Show a page of what the form asks for. */
function show(wantedPage) {
  const params = asked();
  const found = inOrder(rows.filter(isWanted(params)), params.get("sort"));
  const last = Math.max(1, Math.ceil(found.length / ENTRIES_PER_PAGE));
  const page = Math.min(Math.max(1, Math.trunc(wantedPage) || 1), last);
  const start = (page - 1) * ENTRIES_PER_PAGE;
  cards.replaceChildren(...found.slice(start, start + ENTRIES_PER_PAGE).map(cardOf));
  const number = (value) => value.toLocaleString("en");
  const of = found.length < rows.length ? ` of ${number(rows.length)}` : "";
  count.textContent = `${number(found.length)}${of} explanations, page ${page} of ${last}`;
  setPager(params, page, last);
}

/** Set the form as the address says; whether that asks for anything. */
function readAddress() {
  const params = new URLSearchParams(location.hash.slice(1));
  for (const control of form.elements) {
    const value = params.get(control.name) ?? "";
    const isUsable = control.type !== "number" || !Number.isNaN(Number(value));
    if (control.name) control.value = isUsable ? value : "";
    if (control.selectedIndex === -1) control.selectedIndex = 0; // there is no such choice
  }
  return params;
}

function changed() {
  const params = asked();
  const isChoice = [...params].length > 0;
  history.replaceState(null, "", isChoice ? `#${params}` : location.pathname + location.search);
  show(isChoice ? 1 : ownPage);
}

form.addEventListener("input", changed);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(changed));
addEventListener("hashchange", () => {
  const params = readAddress();
  show(Number(params.get("page") ?? ([...params].length ? 1 : ownPage)));
  count.focus();
  count.scrollIntoView();
});
addEventListener("beforeprint", () => {
  for (const image of cards.querySelectorAll("img")) image.loading = "eager";
});
form.hidden = false;
const given = readAddress();
if ([...given].length) show(Number(given.get("page") ?? 1));
