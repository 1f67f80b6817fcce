// The official JavaScript client, unchanged, against the server whose address is the argument.
// Prints a line for each step and ends with an error at the first that goes wrong.
import assert from "node:assert/strict";
import { createClient } from "@supabase/supabase-js";

const [url] = process.argv.slice(2);
const email = `js-${crypto.randomUUID()}@example.com`;
const password = "correct horse battery staple";
const options = {
  auth: { persistSession: false, autoRefreshToken: false },
  // Node 20 has no WebSocket, which the client demands and sign-in never opens.
  realtime: { transport: class {} },
};
const newClient = () => createClient(url, "sb_publishable_anything", options);
const alice = newClient();
const phone = newClient();
const events = [];
alice.auth.onAuthStateChange((event) => events.push(event));

let steps = 0;
async function step(name, run) {
  try {
    await run();
  } catch (error) {
    console.log(`FAILED ${name}`);
    throw error;
  }
  steps += 1;
  console.log(`ok ${steps} ${name}`);
}

function succeeded({ data, error }) {
  assert.equal(error, null);
  return data;
}

function refused({ error }, status, code) {
  assert.ok(error, "it should have been refused");
  assert.deepEqual({ status: error.status, code: error.code }, { status, code });
  return error;
}

async function api(client, path) {
  const { session } = succeeded(await client.auth.getSession());
  const headers = { authorization: `Bearer ${session?.access_token}` };
  return (await fetch(url + path, { headers })).status;
}

await step("a weak password is refused, with its reasons", async () => {
  const error = refused(await alice.auth.signUp({ email, password: "short" }), 422, "weak_password");
  assert.equal(error.name, "AuthWeakPasswordError");
  assert.deepEqual(error.reasons, ["length"]);
});

await step("an address that is none is refused", async () => {
  refused(await alice.auth.signUp({ email: "nobody", password }), 400, "validation_failed");
});

await step("signing up signs in", async () => {
  const data = succeeded(
    await alice.auth.signUp({ email, password, options: { data: { name: "Alice" } } }),
  );
  assert.ok(data.session.access_token && data.session.refresh_token);
  assert.equal(data.user.email, email);
  assert.deepEqual(data.user.user_metadata, { name: "Alice" });
  assert.equal(data.user.identities.length, 1);
});

await step("the token opens the memory", async () => {
  assert.equal(await api(alice, "/memories"), 200);
});

await step("the same address again is refused", async () => {
  refused(await phone.auth.signUp({ email, password }), 422, "user_already_exists");
});

await step("a wrong password is refused", async () => {
  const wrong = { email, password: "not the password" };
  refused(await phone.auth.signInWithPassword(wrong), 400, "invalid_credentials");
});

await step("an unknown address is refused alike", async () => {
  const unknown = { email: "nobody@example.com", password };
  const error = refused(await phone.auth.signInWithPassword(unknown), 400, "invalid_credentials");
  assert.equal(error.message, "Invalid login credentials");
});

await step("the right password signs in", async () => {
  const data = succeeded(await phone.auth.signInWithPassword({ email, password }));
  assert.equal(data.user.email, email);
});

await step("the user can be asked for", async () => {
  const { user } = succeeded(await alice.auth.getUser());
  assert.equal(user.email, email);
  assert.equal(user.role, "authenticated");
});

await step("claims are verified with the published key", async () => {
  const { claims, header } = succeeded(await alice.auth.getClaims());
  assert.equal(header.alg, "ES256");
  assert.equal(claims.email, email);
  assert.equal(claims.iss, "http://127.0.0.1/auth/v1");
});

await step("identities are listed", async () => {
  const { identities } = succeeded(await alice.auth.getUserIdentities());
  assert.equal(identities[0].provider, "email");
});

let first;
await step("a refresh gives new tokens", async () => {
  first = succeeded(await alice.auth.getSession()).session;
  const { session } = succeeded(await alice.auth.refreshSession());
  assert.notEqual(session.refresh_token, first.refresh_token);
  assert.equal(session.user.email, email);
});

await step("the token before gives the current one", async () => {
  const current = succeeded(await alice.auth.getSession()).session.refresh_token;
  const tab = newClient();
  const data = succeeded(await tab.auth.refreshSession({ refresh_token: first.refresh_token }));
  assert.equal(data.session.refresh_token, current);
});

await step("a session can be handed over", async () => {
  const current = succeeded(await alice.auth.getSession()).session;
  const { user } = succeeded(await newClient().auth.setSession(current));
  assert.equal(user.email, email);
});

await step("a made-up refresh token is refused", async () => {
  const made = { refresh_token: "a".repeat(55) };
  refused(await newClient().auth.refreshSession(made), 400, "refresh_token_not_found");
});

await step("metadata is changed", async () => {
  const { user } = succeeded(await alice.auth.updateUser({ data: { theme: "dark" } }));
  assert.deepEqual(user.user_metadata, { name: "Alice", theme: "dark" });
});

await step("the same password again is refused", async () => {
  refused(await alice.auth.updateUser({ password }), 422, "same_password");
});

await step("the password is changed", async () => {
  succeeded(await alice.auth.updateUser({ password: "another good password" }));
});

await step("that signed the phone out", async () => {
  refused(await phone.auth.refreshSession(), 400, "refresh_token_not_found");
});

await step("the phone signs in with the new password", async () => {
  succeeded(
    await phone.auth.signInWithPassword({ email, password: "another good password" }),
  );
});

await step("the others are signed out", async () => {
  assert.equal((await alice.auth.signOut({ scope: "others" })).error, null);
  const { error } = await phone.auth.getUser();
  assert.equal(error.name, "AuthSessionMissingError");
});

await step("no anonymous people", async () => {
  refused(await newClient().auth.signInAnonymously(), 422, "anonymous_provider_disabled");
});

await step("no mail for a lost password", async () => {
  refused(await alice.auth.resetPasswordForEmail(email), 422, "email_provider_disabled");
});

await step("no one-time passwords", async () => {
  refused(await newClient().auth.signInWithOtp({ email }), 422, "email_provider_disabled");
});

await step("a made-up code is refused", async () => {
  const made = { email, token: "123456", type: "email" };
  refused(await newClient().auth.verifyOtp(made), 403, "otp_expired");
});

await step("no administration", async () => {
  refused(await alice.auth.admin.listUsers(), 403, "not_admin");
});

await step("signing out ends the session", async () => {
  const { session } = succeeded(await alice.auth.getSession());
  assert.equal((await alice.auth.signOut()).error, null);
  assert.equal(succeeded(await alice.auth.getSession()).session, null);
  const { error } = await newClient().auth.getUser(session.access_token);
  assert.equal(error.name, "AuthSessionMissingError");
});

await step("signing out twice is no error", async () => {
  assert.equal((await alice.auth.signOut()).error, null);
});

await step("the client noticed all of it", async () => {
  for (const event of ["SIGNED_IN", "TOKEN_REFRESHED", "USER_UPDATED", "SIGNED_OUT"]) {
    assert.ok(events.includes(event), `${event} is missing in ${events}`);
  }
});

console.log(`${steps} steps`);
process.exit(0);
