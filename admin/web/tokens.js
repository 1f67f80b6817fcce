// Personal tokens as people choose them: what they may do, and for how long.

import { el } from "../shared/dom.js";

export const SCOPES = {
  read: "Read: search, list and read your memories",
  write: "Write: save, edit and delete memories",
  chat: "Chat: have a model answer, at the server's cost",
};
export const LIFETIMES = { 30: "30 days", 90: "90 days", 365: "a year", "": "until it is revoked" };
const DAY = 86_400_000;

/** Make a token and return its text, which nobody is ever shown again. */
export async function makeToken(api, name, scopes, days = "") {
  const expires = days ? new Date(Date.now() + Number(days) * DAY).toISOString() : null;
  const { token } = await api.post("/tokens", { name, scopes, expires_at: expires });
  return token;
}

export function scopeChoice(name, text, checked) {
  return el("label", { class: "check" }, el("input", { type: "checkbox", name: "scope", value: name, checked }), text);
}
