// Calls of the REST API: the same endpoints as for any other client.
import { Refused, askObject } from "./service.js";
import { state } from "./page.js";

const running = new Map();

export function stop(name) {
  running.get(name)?.abort();
}

// A later call of the same name aborts the one before, and with it the work on the server.
export function beginning(name) {
  stop(name);
  const controller = new AbortController();
  running.set(name, controller);
  return controller.signal;
}

// An image and what is asked about it; of the model that is chosen, where `fields` names no other.
export function questionForm(fields) {
  const form = new FormData();
  form.append("image", state.image);
  form.append("request", JSON.stringify({ model: state.model, ...fields }));
  return form;
}

// The response, which has `part` if it is one of the service.
export function post(path, fields, signal, part, headers = {}) {
  const options = { method: "POST", body: questionForm(fields), signal, headers };
  return askObject(path, options, (body) => part in body);
}

// The same for many searches at once: they yield to what a person waits for.
export function postBehind(path, fields, signal, part) {
  return post(path, fields, signal, part, { "x-candor-priority": "report" });
}

export function modelDetails(name) {
  return askObject(`/v1/models/${encodeURIComponent(name)}`, {}, (body) => Array.isArray(body.classes));
}

// The server-sent events of a response.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Refused("The connection ended before the result.");
    });
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const match = /^event: (\w+)\ndata: (.*)$/s.exec(part);
      if (match) yield { name: match[1], data: JSON.parse(match[2]) };
    }
  }
}
