import assert from "node:assert/strict";
import test from "node:test";
import { hasCome, verdict, type Reply } from "../src/worker/rules";

const NOW = Date.parse("2026-11-21T09:00:00Z");

function reply(status: number, more: Partial<Reply> = {}): Reply {
  const none = { code: null, message: "", retryAfterSeconds: null, resetAt: null };
  return { status, ours: true, ...none, ...more };
}

const judge = (one: Reply, failures = 0, random = 0.5) => verdict(one, failures, NOW, random);

test("what the server has acknowledged is done", () => {
  assert.deepEqual(judge(reply(200)), { do: "done" });
  assert.deepEqual(judge(reply(201)), { do: "done" });
});

test("only what the server calls invalid is set aside", () => {
  for (const [status, code] of [[400, "INVALID_INPUT"], [409, "CONFLICT"], [413, "TOO_LARGE"]] as const) {
    assert.equal(judge(reply(status, { code })).do, "bury");
  }
  const others: [number, string | null][] = [
    [400, null], [403, "FORBIDDEN"], [404, "NOT_FOUND"], [405, "METHOD_NOT_ALLOWED"], [408, "TOO_SLOW"],
    [415, "UNSUPPORTED_ENCODING"], [421, "WRONG_HOST"], [500, "INTERNAL_ERROR"], [503, "UNAVAILABLE"], [418, "NEW"],
  ];
  for (const [status, code] of others) assert.notEqual(judge(reply(status, { code })).do, "bury");
});

test("a page of somebody else's network acknowledges nothing and refuses nothing", () => {
  for (const status of [0, 200, 302, 400, 401, 403, 404, 409, 413, 502]) {
    const decided = judge(reply(status, { ours: false }));
    assert.deepEqual([decided.do, "why" in decided && decided.why], ["wait", "away"]);
  }
});

test("what may be refused for its own sake lets others try first", () => {
  const aside = (one: Reply) => {
    const decided = judge(one);
    return decided.do === "wait" && decided.aside === true;
  };
  // A proxy's limit of a megabyte, its firewall, and what a later server may say.
  for (const status of [400, 403, 413, 422]) assert.ok(aside(reply(status, { ours: false })), `${status}`);
  assert.ok(aside(reply(422, { code: "SOMETHING_NEW" })));
  for (const status of [0, 200, 302, 401, 407, 502, 503]) assert.ok(!aside(reply(status, { ours: false })), `${status}`);
});

test("a clock that was set back keeps nothing waiting for longer than a day", () => {
  const told = judge(reply(503, { retryAfterSeconds: 86_400 }));
  assert.ok(told.do === "wait" && !hasCome(told.until, NOW) && hasCome(told.until, NOW + 86_400_000));
  assert.ok(hasCome(told.until, NOW - 3_600_000 * 24 * 365));
});

test("a spent day waits until it is reset", () => {
  const resetAt = "2026-11-21T10:30:00+00:00";
  const decided = judge(reply(403, { code: "RATE_LIMIT_EXCEEDED", resetAt, retryAfterSeconds: 5 }));
  assert.deepEqual(decided, { do: "wait", until: Date.parse(resetAt), why: "quota" });
});

test("a reset that nobody can wait for is tried again tomorrow", () => {
  for (const resetAt of ["2126-01-01T00:00:00Z", "2026-11-20T00:00:00Z", "soon"]) {
    const decided = judge(reply(403, { code: "RATE_LIMIT_EXCEEDED", resetAt }));
    assert.ok(decided.do === "wait" && decided.until > NOW && decided.until <= NOW + 24 * 3_600_000);
  }
});

test("too fast, and a server in trouble, wait as long as they say", () => {
  const fast = judge(reply(429, { code: "TOO_MANY_REQUESTS", retryAfterSeconds: 41 }));
  assert.deepEqual(fast, { do: "wait", until: NOW + 41_000, why: "busy" });
  const away = judge(reply(503, { code: "UNAVAILABLE", retryAfterSeconds: 2 }));
  assert.deepEqual(away, { do: "wait", until: NOW + 2_000, why: "away" });
});

test("without a word of when, each failure doubles the pause up to five minutes", () => {
  const pauses = [0, 1, 2, 3, 20, 500].map((failures) => {
    const decided = judge(reply(0, { ours: false }), failures, 0.999);
    assert.ok(decided.do === "wait");
    return Math.round((decided.until - NOW) / 1_000);
  });
  assert.deepEqual(pauses, [1, 2, 4, 8, 300, 300]);
  const least = judge(reply(0, { ours: false }), 20, 0);
  assert.ok(least.do === "wait" && least.until === NOW + 150_000);
});

test("one capture that the server stumbles over does not hold up the others", () => {
  assert.equal(judge(reply(500, { code: "INTERNAL_ERROR" })).do, "later");
});

test("a token that is refused, or may not write, asks for a sign-in", () => {
  assert.deepEqual(judge(reply(401, { code: "UNAUTHORIZED" })), { do: "signIn" });
  assert.deepEqual(judge(reply(403, { code: "MISSING_SCOPE" })), { do: "signIn" });
});
