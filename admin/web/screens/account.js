import { ApiError } from "../../shared/api.js";
import { copyButton } from "../../shared/copy.js";
import { ask, field, notice } from "../../shared/dialog.js";
import { el, show as put } from "../../shared/dom.js";
import { number, timeOf } from "../../shared/format.js";
import { action, body, button, card, fact } from "../parts.js";

const PATIENCE = 20_000;
const SIGN_INS = {
  erased: "The sign-in is erased, too.",
  kept: "Your sign-in at this server's Supabase project is still there: ask its operator to delete it.",
  pending: "Your sign-in at this server's Supabase project is deleted as soon as the project answers.",
};

export async function show({ root, api, session, about, address, signal }) {
  const use = await api.get("/usage", {}, { signal });
  const own = session.kind === "session";
  put(
    root,
    card(
      "You",
      null,
      body(
        el("dl", { class: "facts" }, own && fact("E-mail", session.email), !own && fact("Signed in by", "a personal token"), fact("Id", el("span", { class: "mono" }, use.user_id)), fact("Plan", el("a", { href: address("usage") }, use.tier))),
        action("Sign out", "On this device.", button("Sign out", session.signOut)),
        own && action("Sign out everywhere", "Every device and the extension must sign in again.", button("Sign out everywhere", everywhere)),
      ),
    ),
    own && card("Password", null, body(action("Change the password", "It ends your other sessions. Nobody can mail you a forgotten one where this server keeps the accounts itself.", button("Change…", change)))),
    card(
      "The end",
      null,
      body(
        action("Take everything along", "A zip of all your memories.", el("a", { class: "button", href: address("export") }, "Export")),
        own ? action("Delete the account", "Memories, tokens, sessions and the account itself, on every server, for ever.", button("Delete…", erase, "danger")) : el("p", { class: "muted" }, "To delete the account, sign in with its password: a token cannot."),
      ),
    ),
  );

  async function everywhere() {
    try {
      await asUser("POST", "logout?scope=global");
      await session.signOut();
    } catch (error) {
      notice(error.message, { bad: true });
    }
  }

  async function change() {
    const old = el("input", { class: "input", type: "password", name: "old", autocomplete: "current-password", required: true });
    const fresh = el("input", { class: "input", type: "password", name: "fresh", autocomplete: "new-password", required: true, minlength: 8 });
    const done = await ask({
      title: "Change the password",
      action: "Change",
      body: [field("Password until now", old), field("New password", fresh, "At least 8 characters.")],
      act: (form) => asUser("PUT", "user", { password: form.get("fresh"), current_password: form.get("old") }),
    });
    if (done) notice("The password is changed. Your other sessions have ended.");
  }

  /** What Supabase Auth's protocol has of an account, here or at the project. */
  async function asUser(method, path, sent = {}) {
    const { url, key } = about.auth;
    const headers = { "Content-Type": "application/json", "X-Supabase-Api-Version": "2024-01-01", Authorization: `Bearer ${await session.token()}`, ...(key && { apikey: key }) };
    const request = { method, headers, body: JSON.stringify(sent), signal: AbortSignal.timeout(PATIENCE) };
    const response = await fetch(`${url}/auth/v1/${path}`, request).catch(() => {
      throw new ApiError("The server cannot be reached.");
    });
    if (response.ok) return;
    const answer = await response.json().catch(() => null);
    throw new ApiError(answer?.message ?? answer?.msg ?? `The server answered ${response.status}.`, { status: response.status });
  }

  async function erase() {
    let receipt = null;
    const local = about.auth.kind === "local";
    const password = el("input", { class: "input", type: "password", name: "password", autocomplete: "current-password", required: true });
    const done = await ask({
      title: "Delete your account for ever?",
      danger: true,
      action: "Delete everything",
      typed: session.email,
      body: [
        el("p", {}, "Every memory, what is in the trash, your tokens, your sessions and the account itself are erased on every server. Nothing brings them back."),
        el("p", {}, el("a", { href: address("export"), on: { click: (event) => event.target.closest("dialog").close() } }, "Export your memories first"), " if you want to keep them."),
        local ? field("Password", password) : el("p", { class: "muted small" }, "It asks for a sign-in within the last ten minutes: sign out and in again if it is longer ago."),
      ],
      act: async (form) => {
        receipt = await api.delete("/account", local ? { password: form.get("password") } : {});
      },
    });
    if (done) put(root, receiptCard(receipt, session.signOut));
  }
}

function receiptCard(receipt, leave) {
  const counts = Object.entries(receipt.erased);
  return card(
    "Your account is erased",
    timeOf(receipt.erased_at),
    body(
      el("p", {}, "This is the receipt: what was erased, and how much of it."),
      el("dl", { class: "facts" }, counts.map(([name, count]) => fact(name.replaceAll("_", " "), number(count)))),
      el("p", {}, SIGN_INS[receipt.sign_in]),
      el("div", { class: "row" }, copyButton(() => JSON.stringify(receipt, null, 2), "the receipt"), button("Leave", leave, "primary")),
    ),
  );
}
