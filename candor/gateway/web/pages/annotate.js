// Answers by keyboard and without a reload.  An answer counts as saved once the server confirms it;
// until then it is sent again, which changes nothing if it had arrived.
"use strict";

const KEYS = {
  1: "unchanged", ArrowLeft: "unchanged",
  2: "unsure", ArrowDown: "unsure",
  3: "changed", ArrowRight: "changed",
};
const SHOWN_PIXELS = 320;
const RETRY_MILLISECONDS = 1000;
const CALL_MILLISECONDS = 10000;

const element = (id) => document.getElementById(id);
const annotator = element("desk").dataset.annotator;
const answerForm = element("answer");
let isBusy = false;

class Rejected extends Error {}

async function call(verb, fields) {
  const response = await fetch(`/v1/annotations:${verb}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ annotator, ...fields }),
    signal: AbortSignal.timeout(CALL_MILLISECONDS),
  });
  const body = await response.json();
  if (response.status >= 500) throw new Error(body.error.message);
  if (!response.ok) throw new Rejected(body.error.message);
  return body;
}

async function callUntilAnswered(verb, fields, waiting) {
  for (;;) {
    try {
      return await call(verb, fields);
    } catch (error) {
      if (error instanceof Rejected) throw error;
      say(waiting, true);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
    }
  }
}

function say(text, isWarning = false) {
  element("status").textContent = text;
  element("status").classList.toggle("warning", isWarning);
}

function showImage(id, png) {
  const image = element(id);
  image.src = `data:image/png;base64,${png}`;
  image.decode().then(() => {
    const width = image.naturalWidth;
    image.width = width * Math.max(1, Math.floor(SHOWN_PIXELS / width));
  }, () => say("An image cannot be shown.", true));
}

function show(state) {
  const { task } = state;
  element("task").hidden = task === null;
  element("done").hidden = task !== null;
  if (task !== null) {
    answerForm.elements.candidate.value = task.candidate;
    for (const label of document.querySelectorAll(".label")) label.textContent = task.label;
    showImage("original", task.original_png);
    showImage("adversarial", task.adversarial_png);
  }
  element("answered").textContent = state.answered;
  element("waiting").textContent = state.waiting;
  element("progress").max = Math.max(1, state.answered + state.waiting);
  element("progress").value = state.answered;
  element("undo").querySelector("button").disabled = state.answered === 0;
}

async function alone(work) {
  if (isBusy) return;
  isBusy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    const state = await callUntilAnswered("next", {}, "The server does not respond. Trying again ...");
    show(state);
    say(error.message, true);
  } finally {
    isBusy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function answer(verdict) {
  if (element("task").hidden) return;
  alone(async () => {
    const candidate = Number(answerForm.elements.candidate.value);
    const waiting = "Not saved yet: the server does not respond. Trying again ...";
    show(await callUntilAnswered("answer", { candidate, verdict }, waiting));
    say(`Saved: ${verdict}.`);
  });
}

function undo() {
  if (element("undo").querySelector("button").disabled) return;
  // Sent only once: a second request would take back one more answer.
  alone(async () => {
    show(await call("undo", {}));
    say("Taken back.");
  });
}

answerForm.addEventListener("submit", (event) => {
  event.preventDefault();
  answer(event.submitter.value);
});
element("undo").addEventListener("submit", (event) => {
  event.preventDefault();
  undo();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key in KEYS) {
    event.preventDefault();
    answer(KEYS[event.key]);
  } else if (event.key === "u" || event.key === "U") {
    undo();
  }
});
window.addEventListener("beforeunload", (event) => {
  if (isBusy) event.preventDefault();
});
