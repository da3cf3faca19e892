// Answers by keyboard and without a reload.  An answer is kept in this browser until the server
// confirms that it is saved; it is sent again, also after a reload, which changes nothing if it had
// arrived.
import { Refused, askObject } from "./service.js";

const SHOWN_PIXELS = 320;
const FIRST_PAUSE_SECONDS = 1;
const LONGEST_PAUSE_SECONDS = 15;
const CALL_MILLISECONDS = 10000;

const element = (id) => document.getElementById(id);
// Of the question: path of its API, name of an image's number, name of its answers in the browser.
const { annotator, api, asked, kept: keptName } = element("question").dataset;
const answerForm = element("answer");
let isBusy = false;
let goOn = () => {}; // ends the pause before the next attempt

// --- answers that wait ---------------------------------------------------------------------------

const kept = {
  place: `candor: ${keptName} of ${annotator}`,
  isDurable: true,
  answers: [],
  read() {
    try {
      this.answers = JSON.parse(localStorage.getItem(this.place) ?? "[]");
    } catch {
      this.isDurable = false; // the browser keeps nothing for this site
    }
    return this.answers;
  },
  write(answers) {
    this.answers = answers;
    try {
      if (answers.length > 0) localStorage.setItem(this.place, JSON.stringify(answers));
      else localStorage.removeItem(this.place);
    } catch {
      this.isDurable = false;
    }
  },
  others(answer) {
    return this.read().filter((one) => one[asked] !== answer[asked]);
  },
  add(answer) {
    this.write([...this.others(answer), answer]);
  },
  remove(answer) {
    this.write(this.others(answer));
  },
  has(answer) {
    return this.read().some((one) => one[asked] === answer[asked]);
  },
};

// --- calls ---------------------------------------------------------------------------------------

function call(verb, fields = {}) {
  const options = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ annotator, ...fields }),
    signal: AbortSignal.timeout(CALL_MILLISECONDS),
  };
  return askObject(`${api}:${verb}`, options, (body) => Number.isInteger(body.answered) && "task" in body);
}

// The state after the call, tried again until there is one; null once it is no longer wanted.
async function patiently(verb, fields, explain, isWanted = () => true) {
  for (let pause = FIRST_PAUSE_SECONDS; isWanted(); pause = Math.min(2 * pause, LONGEST_PAUSE_SECONDS)) {
    try {
      const state = await call(verb, fields);
      showWaiting(null);
      return state;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.isFinal) throw error;
      say(explain(error), true);
      showWaiting(error, verb === "answer");
      await pauseOf(Math.max(pause, Math.min(error.retrySeconds, 60)));
    }
  }
  return null;
}

function pauseOf(seconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    goOn = () => { clearTimeout(timer); resolve(); };
  });
}

// Sends every answer that waits; the state after the last one, or null where it is to be asked for.
async function deliver() {
  let state = null;
  for (let waiting = kept.read()[0]; waiting; waiting = kept.read()[0]) {
    try {
      state = await patiently("answer", waiting, notYet, () => kept.has(waiting));
      say(state === null ? "Not sent again." : `Saved: ${waiting.verdict}.`, state === null);
    } catch (error) {
      if (!error.isFinal) throw error;
      state = null;
      report(`Not saved (${waiting.verdict}): ${error.message}`);
    }
    kept.remove(waiting);
  }
  return state;
}

function notYet(error) {
  const what = kept.isDurable
    ? "Your answer is kept in this browser and sent again."
    : "Please keep this page open: your answer is sent again.";
  return `Not saved yet: ${error.message} ${what}`;
}

async function settle() {
  const state = await deliver();
  show(state ?? await patiently("next", {}, (error) => `No next image yet: ${error.message} Trying again ...`));
}

// --- what is shown -------------------------------------------------------------------------------

function say(text, isWarning = false) {
  element("status").textContent = text;
  element("status").classList.toggle("warning", isWarning);
}

// Stays on the page: no later message may hide that an answer was lost.
function report(text) {
  const line = document.createElement("li");
  line.textContent = text;
  element("lost").append(line);
  say(text, true);
}

function showWaiting(error, isAnswer = false) {
  element("again").hidden = error === null;
  element("discard").hidden = error === null || !isAnswer;
  element("enter-key").hidden = !error?.needsKey;
}

function showImage(image, png) {
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
    answerForm.elements[asked].value = task[asked];
    for (const part of document.querySelectorAll("[data-field]")) {
      const value = task[part.dataset.field];
      if (part.tagName === "IMG") showImage(part, value);
      else part.textContent = value;
    }
  }
  element("answered").textContent = state.answered;
  element("waiting").textContent = state.waiting;
  element("progress").max = Math.max(1, state.answered + state.waiting);
  element("progress").value = state.answered;
  element("undo").querySelector("button").disabled = state.answered === 0;
}

// --- what people do ------------------------------------------------------------------------------

async function alone(work) {
  if (isBusy) return;
  isBusy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    say(`Not done: ${error.message} Please reload this page.`, true);
  } finally {
    isBusy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function answer(verdict) {
  if (element("task").hidden) return;
  alone(async () => {
    kept.add({ [asked]: Number(answerForm.elements[asked].value), verdict });
    say("Saving ...");
    await settle();
  });
}

function undo() {
  if (element("undo").querySelector("button").disabled) return;
  // Sent only once: a second request would take back one more answer.
  alone(async () => {
    say("Taking back ...");
    const before = Number(element("answered").textContent);
    try {
      show(await call("undo"));
      say("Taken back.");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      await showWhetherUndone(before, error);
    }
  });
}

async function showWhetherUndone(before, error) {
  const refused = `Not taken back: ${error.message}`;
  if (error.isKnown) {
    element("enter-key").hidden = !error.needsKey;
    say(refused, true);
    return;
  }
  const asking = () => `Perhaps not taken back: ${error.message} Asking the server ...`;
  const state = await patiently("next", {}, asking);
  show(state);
  const isBack = state.answered < before;
  say(isBack ? "Taken back." : refused, !isBack);
}

// A key may be a capital letter; the names of other keys have several letters.
function buttonOf(key) {
  const name = key.length === 1 ? key.toLowerCase() : key;
  return document.querySelector(`button[data-keys~="${CSS.escape(name)}"]`);
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
  const button = buttonOf(event.key);
  if (!button) return;
  event.preventDefault();
  if (button.form === answerForm) answer(button.value);
  else undo();
});
element("again").addEventListener("click", () => goOn());
element("discard").addEventListener("click", () => {
  kept.write(kept.read().slice(1));
  goOn();
});
window.addEventListener("online", () => goOn());
window.addEventListener("beforeunload", (event) => {
  if (isBusy && !kept.isDurable) event.preventDefault();
});
if (kept.read().length > 0) {
  alone(async () => {
    say("Sending the answers that wait in this browser ...");
    await settle();
  });
}
