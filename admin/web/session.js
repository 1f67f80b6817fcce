// Who is signed in here: Supabase Auth's protocol, spoken to this server or to its Supabase project.

import { ApiError } from "../shared/api.js";

const KEY = "memory-layer-session";
const PATIENCE = 20_000;
// A token is renewed this long before it ends, in seconds.
const AHEAD = 60;

/**
 * `auth` is of GET /about. What is kept is `{kind: "session", access_token, refresh_token,
 * expires_at, email}` or `{kind: "token", token}`; every tab of this address shares it.
 */
export function makeSession(auth) {
  async function signIn(email, password, { stay }) {
    begin(await ask(auth, "token?grant_type=password", { email, password }), stay);
  }

  /** Say whether the account can be used at once, or a mail waits to be confirmed. */
  async function signUp(email, password, { stay }) {
    const answer = await ask(auth, "signup", { email, password });
    if (!answer.access_token) return false;
    begin(answer, stay);
    return true;
  }

  function begin(answer, stay) {
    keep(sessionOf(answer), stay);
  }

  function useToken(token, { stay }) {
    keep({ kind: "token", token: token.trim() }, stay);
  }

  /** The bearer of the moment, or null. `refused` is one that the server no longer takes. */
  async function token(refused = null) {
    const kept = read();
    if (kept?.kind !== "session") return kept && kept.token !== refused ? kept.token : null;
    if (isGood(kept, refused)) return kept.access_token;
    // Tabs take turns: a refresh token that is used twice ends the session.
    return alone(async () => {
      const now = read();
      if (now?.kind !== "session") return null;
      if (isGood(now, refused)) return now.access_token;
      return refresh(now);
    });
  }

  async function refresh(kept) {
    try {
      const next = sessionOf(await ask(auth, "token?grant_type=refresh_token", { refresh_token: kept.refresh_token }));
      keep(next, localStorage.getItem(KEY) !== null);
      return next.access_token;
    } catch (error) {
      if (error.status >= 400 && error.status < 500 && error.status !== 429) {
        forget();
        return null;
      }
      throw error;
    }
  }

  async function signOut() {
    const kept = read();
    forget();
    // That it ends here does not hang on the server's answer.
    if (kept?.kind === "session") await ask(auth, "logout?scope=local", {}, kept.access_token).catch(() => {});
  }

  return {
    signIn,
    signUp,
    signOut,
    useToken,
    token,
    forget,
    get kept() {
      return read();
    },
  };
}

/** Hear when another tab signs out, or in as somebody else. */
export function onOtherTab(listener) {
  let who = whoOf(read());
  addEventListener("storage", (event) => {
    const now = whoOf(read());
    if ((event.key === KEY || event.key === null) && now !== who) listener();
    who = now;
  });
}

const whoOf = (kept) => kept && (kept.email ?? kept.token);

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY));
  } catch {
    return null;
  }
}

function keep(kept, stay) {
  forget();
  (stay ? localStorage : sessionStorage).setItem(KEY, JSON.stringify(kept));
}

function forget() {
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(KEY);
}

function isGood(kept, refused) {
  return kept.access_token !== refused && kept.expires_at - AHEAD > Date.now() / 1000;
}

function sessionOf({ access_token, refresh_token, expires_in, user }) {
  return { kind: "session", access_token, refresh_token, expires_at: Date.now() / 1000 + expires_in, email: user?.email ?? null };
}

/** Do it while no other tab does; a page without a secure origin has no locks, and seldom two tabs. */
function alone(act) {
  return navigator.locks ? navigator.locks.request(KEY, act) : act();
}

async function ask({ url, key }, path, body, bearer = null) {
  let response;
  try {
    response = await fetch(`${url}/auth/v1/${path}`, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "X-Supabase-Api-Version": "2024-01-01",
        ...(key && { apikey: key }),
        ...(bearer && { Authorization: `Bearer ${bearer}` }),
      },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE),
    });
  } catch {
    throw new ApiError("The server cannot be reached.");
  }
  const answer = response.status === 204 ? {} : await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  const wait = Number(response.headers.get("Retry-After"));
  throw new ApiError(answer?.message ?? answer?.msg ?? `The server answered ${response.status}.`, {
    status: response.status,
    code: answer?.code,
    retryAfter: wait > 0 ? wait : null,
  });
}
