// The only place that calls the server: its envelope is opened here, and its errors get a name.

const PATIENCE = 30_000;

export class ApiError extends Error {
  constructor(message, { status = 0, code = "UNREACHABLE", details = {}, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, details, retryAfter });
  }
}

/**
 * Make a caller of the server. `headers` is asked before each call (a bearer, say) and may be async;
 * `onSignedOut` hears of every 401.
 */
export function makeApi({ base = "", headers = () => ({}), onSignedOut = () => {} } = {}) {
  async function call(method, path, { body, query, more = {} } = {}) {
    const response = await ask(base + path + queryOf(query), {
      method,
      headers: {
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(await headers()),
        ...more,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    });
    const answer = await response.json().catch(() => null);
    if (response.ok && answer?.success) return answer.data;
    if (response.status === 401) onSignedOut();
    throw errorOf(response, answer);
  }

  return {
    call,
    get: (path, query) => call("GET", path, { query }),
    post: (path, body = {}) => call("POST", path, { body }),
    patch: (path, body) => call("PATCH", path, { body }),
    delete: (path, body) => call("DELETE", path, { body }),
  };
}

async function ask(address, request) {
  try {
    return await fetch(address, request);
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new ApiError(late ? "The server took too long to answer." : "The server cannot be reached.");
  }
}

function queryOf(query = {}) {
  const entries = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return entries.length ? `?${new URLSearchParams(entries)}` : "";
}

function errorOf(response, answer) {
  const message = answer?.error ?? `The server answered ${response.status}.`;
  const wait = Number(response.headers.get("Retry-After"));
  return new ApiError(message, {
    status: response.status,
    code: answer?.error_code ?? "UNKNOWN",
    details: answer?.details ?? {},
    retryAfter: wait > 0 ? wait : null,
  });
}
