// Files on their way to the server: they go on while other screens are looked at.

import { ApiError } from "../shared/api.js";

let queue = [];
let owner = null;
let going = false;
const watchers = new Set();

/**
 * The uploads of who is signed in: `all()`, each {file, state, sent, message, job}, of which state is
 * waiting, uploading, failed or sent; `add(files)`, `again(one)`, `drop(one)`, and `watch(listener, signal)`.
 */
export function uploadsOf(api, session) {
  const me = `${session.kind} ${session.email}`;
  if (owner !== me) {
    for (const one of queue) one.stop.abort();
    queue = [];
    owner = me;
  }

  function add(files) {
    for (const file of files) queue.push({ file, state: "waiting", sent: 0, message: null, job: null, stop: new AbortController() });
    tell();
    turn(api, session);
  }

  function again(one) {
    Object.assign(one, { state: "waiting", sent: 0, message: null, job: null, stop: new AbortController() });
    tell();
    turn(api, session);
  }

  function drop(one) {
    one.stop.abort();
    queue = queue.filter((other) => other !== one);
    tell();
  }

  function watch(listener, signal) {
    watchers.add(listener);
    signal.addEventListener("abort", () => watchers.delete(listener));
  }

  return { all: () => [...queue], add, again, drop, watch };
}

function tell() {
  for (const listener of watchers) listener();
}

/** One file after the other: together they would not arrive sooner. */
async function turn(api, session) {
  if (going) return;
  going = true;
  addEventListener("beforeunload", hold);
  for (let one = next(); one; one = next()) await send(one, api, session);
  removeEventListener("beforeunload", hold);
  going = false;
}

const next = () => queue.find((one) => one.state === "waiting");
const hold = (event) => event.preventDefault();

async function send(one, api, session) {
  one.state = "uploading";
  tell();
  try {
    one.job = await attempt(one, session).catch(async (error) => {
      if (error.status !== 401) throw error;
      // Renews the session, or ends it and asks who it is.
      await api.get("/import");
      return attempt(one, session);
    });
    one.state = "sent";
  } catch (error) {
    if (error.name === "AbortError") return;
    Object.assign(one, { state: "failed", message: error.message });
  }
  tell();
}

/** By XMLHttpRequest, since fetch tells nobody how much of a body is sent. */
async function attempt(one, session) {
  const token = await session.token();
  one.stop.signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/import?${new URLSearchParams({ name: one.file.name.slice(-500) })}`);
    request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.addEventListener("progress", ({ loaded }) => {
      one.sent = loaded;
      tell();
    });
    request.addEventListener("load", () => {
      const answer = request.response;
      if (answer?.success) resolve(answer.data);
      else reject(new ApiError(answer?.error ?? `The server answered ${request.status}.`, { status: request.status, code: answer?.error_code }));
    });
    request.addEventListener("error", () => reject(new ApiError("The connection broke off; nothing of the file is kept. Send it again.")));
    request.addEventListener("abort", () => reject(one.stop.signal.reason));
    one.stop.signal.addEventListener("abort", () => request.abort());
    request.send(one.file);
  });
}
