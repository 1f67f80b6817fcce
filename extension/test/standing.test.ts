import assert from "node:assert/strict";
import test from "node:test";
import { chatgpt } from "../src/sites/chatgpt";
import type { Settings } from "../src/worker/settings";
import { standingFor } from "../src/worker/standing";

const READY = {
  agreedAt: "2026-11-21T09:00:00Z",
  account: { id: "1", label: "me", kind: "session" },
  sites: ["chatgpt"],
  incognito: false,
} as unknown as Settings;

const cases: [string, Partial<Settings>, boolean, string][] = [
  ["agreed, signed in, switched on", {}, false, "saving"],
  ["before the agreement", { agreedAt: null }, false, "notSetUp"],
  ["signed out", { account: null }, false, "signedOut"],
  ["a site that is not switched on", { sites: ["claude"] }, false, "off"],
  ["a private window", {}, true, "incognito"],
  ["a private window that is allowed", { incognito: true }, true, "saving"],
  ["a private window of a site that is off", { incognito: true, sites: [] }, true, "off"],
  ["a session that the server refuses still keeps what is said", { needsSignIn: true }, false, "saving"],
];

for (const [name, changes, incognito, expected] of cases) {
  test(`whether a chat is saved: ${name}`, () => {
    assert.equal(standingFor(chatgpt, incognito, { ...READY, ...changes }), expected);
  });
}
