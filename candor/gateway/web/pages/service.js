// Calls of the service, for every page: what came back, or in words why nothing did.

// isFinal: the service read the request and will never accept it; anything else may work later.
// isKnown: the service or something before it answered, so nothing was done.
// violations: every invalid field of the request, {field, description}.
export class Refused extends Error {
  constructor(message, { isFinal = false, isKnown = false, needsKey = false, retrySeconds = 0, violations = [] } = {}) {
    super(message);
    Object.assign(this, { isFinal, isKnown, needsKey, retrySeconds, violations });
  }
}

const REASONS = {
  401: "Your key is missing or no longer valid.",
  403: "Your key does not allow this.",
  413: "The request was too large for the server or a proxy.",
  429: "There were too many requests.",
};

// A response of the service that is no refusal; throws Refused, or the AbortError of the caller.
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(navigator.onLine ? "The service does not respond." : "This device is offline.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

// The object in such a response; isWhole says whether it is one of the service.
export async function askObject(path, options, isWhole) {
  const response = await ask(path, options);
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // Text that is no JSON is a SyntaxError; anything else ended before its last byte.
    if (error.name !== "SyntaxError") throw new Refused("The connection ended before the whole answer.");
  }
  if (!isWhole(body ?? {})) throw foreign(response);
  return body;
}

// Proxies answer with pages of their own, also with status 200.
export function foreign(response) {
  const kind = (response.headers.get("content-type") ?? "nothing").split(";")[0];
  return new Refused(`Something other than the service answered (HTTP ${response.status}, ${kind}).`);
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const error = typeof body?.error?.code === "string" ? body.error : null;
  const reason = REASONS[response.status] ?? (error ? "" : `The server answered HTTP ${response.status}.`);
  return new Refused([reason, error && words(error)].filter(Boolean).join(" "), {
    isFinal: response.status === 400 && error?.code === "INVALID_INPUT",
    isKnown: response.status < 500,
    needsKey: response.status === 401 || response.status === 403,
    retrySeconds: Number(error?.retry_seconds ?? response.headers.get("retry-after")) || 0,
    violations: error?.violations,
  });
}

// The error that ends a stream of the service.
export function refused(error) {
  return new Refused(words(error), { retrySeconds: error.retry_seconds ?? 0, violations: error.violations });
}

function words({ message, code, request_id }) {
  return `${message} (${code}, request ${request_id})`;
}
