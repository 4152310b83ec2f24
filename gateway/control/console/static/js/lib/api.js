// Calls of the REST API. One that fails is an ApiError with the gateway's own words; one that finds nobody signed in
// says so to whoever listens, once.

export class ApiError extends Error {
  constructor(status, error, problems) {
    super(error.message || "The gateway did not answer.");
    this.status = status;
    this.code = error.code || "";
    this.param = error.param || null;
    this.requestId = error.request_id || null;
    this.problems = problems || [];
  }
}

const state = { csrf: null, onSignedOut: () => {} };

/** Set what every changing call must show, and who hears that nobody is signed in any more. */
export function configure({ csrf, onSignedOut }) {
  if (csrf !== undefined) state.csrf = csrf;
  if (onSignedOut) state.onSignedOut = onSignedOut;
}

/** A query string from an object; what is empty is left out. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

async function call(method, path, body, signal, extra = {}) {
  const headers = { Accept: "application/json", ...extra };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && state.csrf) headers["X-CSRF-Token"] = state.csrf;
  let response;
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "same-origin",
    });
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new ApiError(0, { message: "The gateway cannot be reached. Is it running?", code: "unreachable" });
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const told = await response.json().catch(() => ({}));
  const error = new ApiError(response.status, told.error || {}, told.problems);
  if (response.status === 401 && !path.startsWith("/auth/") && path !== "/me/password") state.onSignedOut();
  throw error;
}

export const api = {
  get: (path, signal) => call("GET", path, undefined, signal),
  post: (path, body, headers) => call("POST", path, body, undefined, headers),
  put: (path, body, headers) => call("PUT", path, body, undefined, headers),
  patch: (path, body) => call("PATCH", path, body),
  delete: (path, headers) => call("DELETE", path, undefined, undefined, headers),
};

/** Every page of a list, up to a thousand rows: for choices, where lists are short. */
export async function all(path) {
  const rows = [];
  let cursor = null;
  do {
    const page = await api.get(`${path}${query({ limit: 200, cursor })}`);
    rows.push(...page.data);
    cursor = page.next;
  } while (cursor && rows.length < 1000);
  return rows;
}
