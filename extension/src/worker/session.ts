// Who is signed in. The worker is the one place with a session: two that refresh one token would
// sign each other out.

import { GoTrueClient, isAuthRetryableFetchError } from "@supabase/auth-js";
import { fetchEnvelope, Problem } from "./server";
import { change, settings, type Settings } from "./settings";

const PATIENCE_MS = 20_000;
const STORAGE_KEY = "session";

const storage = {
  getItem: async (key: string) =>
    ((await chrome.storage.local.get(key)) as Record<string, string>)[key] ?? null,
  setItem: async (key: string, value: string) => chrome.storage.local.set({ [key]: value }),
  removeItem: async (key: string) => chrome.storage.local.remove(key),
};

let made: { url: string; client: GoTrueClient } | undefined;

function authUrl({ server, supabase }: Settings): string {
  return `${supabase?.url ?? server}/auth/v1`;
}

function clientFor(now: Settings): GoTrueClient {
  const url = authUrl(now);
  if (made?.url !== url) {
    const client = new GoTrueClient({
      url,
      headers: now.supabase ? { apikey: now.supabase.key } : {},
      storage,
      storageKey: STORAGE_KEY,
      persistSession: true,
      // Timers die with the worker: a session is renewed when it is asked for.
      autoRefreshToken: false,
      detectSessionInUrl: false,
      flowType: "pkce",
      fetch: (input: RequestInfo | URL, init?: RequestInit) =>
        fetch(input, { ...init, signal: AbortSignal.timeout(PATIENCE_MS) }),
    });
    made = { url, client };
  }
  return made.client;
}

/** Return what to send as the bearer; `away` when it must be renewed and nobody answers. */
export async function accessToken(renew: boolean): Promise<{ token: string } | "none" | "away"> {
  const now = await settings();
  if (!now.account) return "none";
  if (now.token !== null) return renew ? "none" : { token: now.token };
  const client = clientFor(now);
  const { data, error } = renew ? await client.refreshSession() : await client.getSession();
  if (data.session) return { token: data.session.access_token };
  return error && isAuthRetryableFetchError(error) ? "away" : "none";
}

export async function signIn(email: string, password: string, isNew: boolean): Promise<void> {
  const now = await settings();
  const client = clientFor(now);
  const { data, error } = isNew
    ? await client.signUp({ email, password })
    : await client.signInWithPassword({ email, password });
  if (error) throw new Problem(told(error));
  if (!data.session) throw new Problem("Confirm the mail that was sent to you, then sign in.");
  await remember(data.session.user.id, data.session.user.email ?? email);
}

/** Sign in at a service that the Supabase project trusts, in a window of the browser's own. */
export async function signInWith(service: string): Promise<void> {
  const client = clientFor(await settings());
  const redirectTo = chrome.identity.getRedirectURL();
  const { data, error } = await client.signInWithOAuth({
    provider: service as "google",
    options: { redirectTo, skipBrowserRedirect: true },
  });
  if (error || !data.url) throw new Problem(error ? told(error) : "No address to sign in at.");
  const back = await chrome.identity.launchWebAuthFlow({ url: data.url, interactive: true });
  const code = back && new URL(back).searchParams.get("code");
  if (!code) throw new Problem("Signing in was not completed.");
  const { data: exchanged, error: refused } = await client.exchangeCodeForSession(code);
  if (refused) throw new Problem(told(refused));
  const { user } = exchanged.session;
  await remember(user.id, user.email ?? user.id);
}

export async function useToken(token: string): Promise<void> {
  const { server } = await settings();
  const { reply, data } = await fetchEnvelope(`${server}/usage`, "GET", undefined, token);
  if (reply.status === 0) throw new Problem("The server does not answer.");
  const id = (data as { user_id?: unknown } | null)?.user_id;
  if (!reply.ours || typeof id !== "string") throw new Problem("The server refuses this token.");
  await clearSession();
  const account = { id, label: `token …${token.slice(-4)}`, kind: "token" as const };
  await change({ account, token, needsSignIn: false });
}

export async function signOut(): Promise<void> {
  const now = await settings();
  if (now.account?.kind === "session") await clientFor(now).signOut({ scope: "local" });
  await clearSession();
  await change({ account: null, token: null, needsSignIn: false });
}

async function clearSession(): Promise<void> {
  made = undefined;
  await chrome.storage.local.remove([STORAGE_KEY, `${STORAGE_KEY}-code-verifier`]);
}

async function remember(id: string, label: string): Promise<void> {
  await change({ account: { id, label, kind: "session" }, token: null, needsSignIn: false });
}

function told(error: Error): string {
  return isAuthRetryableFetchError(error) ? "The server does not answer." : error.message;
}

/** Say where people sign in, and which services are offered there. */
export async function signInOptions(): Promise<{ answers: boolean; services: string[] }> {
  const now = await settings();
  try {
    const response = await fetch(`${authUrl(now)}/settings`, {
      headers: now.supabase ? { apikey: now.supabase.key } : {},
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!response.ok) return { answers: false, services: [] };
    const { external } = (await response.json()) as { external?: Record<string, boolean> };
    const services = Object.entries(external ?? {})
      .filter(([name, on]) => on && !["email", "phone", "anonymous_users"].includes(name))
      .map(([name]) => name);
    return { answers: true, services };
  } catch {
    return { answers: false, services: [] };
  }
}
