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
 * `renew`, given the headers that were refused, says whether a 401 is worth another try;
 * `onSignedOut` hears of every other 401, `onDone` of the method and path of what succeeded.
 */
export function makeApi({ base = "", headers = () => ({}), renew = async () => false, onSignedOut = () => {}, onDone = () => {} } = {}) {
  /**
   * Send a request and return the response; raises ApiError for a refusal. `body` is sent as JSON,
   * but for a FormData or a Blob. `patience` is in milliseconds, null for none.
   */
  async function send(method, path, { body, query, more = {}, signal = null, patience = PATIENCE } = {}) {
    const raw = body === undefined || body instanceof FormData || body instanceof Blob;
    const attempt = async () => {
      const own = await headers();
      const signals = [signal, patience && AbortSignal.timeout(patience)].filter(Boolean);
      const response = await ask(base + path + queryOf(query), {
        method,
        headers: { ...(raw ? {} : { "Content-Type": "application/json" }), ...own, ...more },
        body: raw ? body : JSON.stringify(body),
        credentials: "same-origin",
        cache: "no-store",
        signal: signals.length > 1 ? AbortSignal.any(signals) : signals[0],
      });
      return { own, response };
    };
    let { own, response } = await attempt();
    if (response.status === 401 && (await renew(own))) ({ response } = await attempt());
    if (response.ok) {
      onDone(method, path);
      return response;
    }
    if (response.status === 401) onSignedOut();
    throw errorOf(response, await response.json().catch(() => null));
  }

  async function call(method, path, options) {
    return (await read(method, path, options)).data;
  }

  /** As `call`, and with the ETag of what was read. */
  async function read(method, path, options) {
    const response = await send(method, path, options);
    const answer = await response.json().catch(() => null);
    if (!answer?.success) throw errorOf(response, answer);
    return { data: answer.data, etag: response.headers.get("ETag") };
  }

  return {
    send,
    call,
    read,
    get: (path, query, options) => call("GET", path, { query, ...options }),
    post: (path, body = {}, options) => call("POST", path, { body, ...options }),
    patch: (path, body, options) => call("PATCH", path, { body, ...options }),
    delete: (path, body) => call("DELETE", path, { body }),
  };
}

async function ask(address, request) {
  try {
    return await fetch(address, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
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
