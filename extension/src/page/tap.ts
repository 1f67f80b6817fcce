// Runs in the page's world before its scripts. It listens to the requests of a few addresses and
// passes on what it reads from copies. It never throws into the page, never delays it, never
// changes what it sends or receives, and holds no token and no memory.

import { ENDPOINTS } from "../sites/endpoints";
import { endpointFor, type Endpoint } from "../sites/site";
import type { Tapped } from "../messages";

(() => {
  const endpoints = ENDPOINTS as Endpoint[];
  const { port1: port, port2 } = new MessageChannel();
  const decoder = TextDecoder;
  const LARGEST_BODY = 8_000_000;
  const TOGETHER_MS = 100;
  // Nothing new is looked at while this is false; what has begun is still read to its end.
  let listening = true;
  let requests = 0;

  const say = (message: Tapped): void => port.postMessage(message);
  port.onmessage = (event: MessageEvent<unknown>) => {
    listening = event.data === true;
  };
  // The content script has been listening since before this task: no page script sees the port.
  window.postMessage("", location.origin, [port2]);

  const quietly = (work: () => void): void => {
    try {
      work();
    } catch {
      // Whatever the page did, it is no fault that the page may see.
    }
  };
  const absolute = (url: string | URL): string => new URL(url, location.href).href;

  const bodyOf = (body: unknown): string | Promise<string> => {
    if (typeof body === "string") return body;
    if (body instanceof URLSearchParams) return body.toString();
    if (body instanceof Blob) return body.size > LARGEST_BODY ? "" : body.text();
    if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) {
      return body.byteLength > LARGEST_BODY ? "" : new decoder().decode(body as ArrayBuffer);
    }
    return "";
  };

  /** Read a copy to its end. Pieces that come close together are passed on together. */
  const readAll = async (n: number, response: Response, announced: Promise<void>): Promise<void> => {
    let pieces: Uint8Array[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const passOn = (): void => {
      timer = undefined;
      const data = joined(pieces);
      pieces = [];
      if (data.length > 0) port.postMessage({ k: "data", n, data } satisfies Tapped, [data.buffer]);
    };
    let reason: "done" | "aborted" | "failed" = "done";
    try {
      // The copy is made before the page can touch the answer.
      const reader = response.clone().body?.getReader();
      const stop = (): void => {
        // After what the page has read already, which may have been all of it.
        const letGo = (): void => {
          reason = "aborted";
          reader?.cancel().catch(() => {});
        };
        void announced.then(() => setTimeout(letGo, 0));
      };
      if (response.body) copies.set(response.body, stop);
      await announced;
      say({ k: "head", n, status: response.status });
      for (;;) {
        const chunk = await reader?.read();
        if (!chunk || chunk.done) break;
        pieces.push(chunk.value);
        timer ??= setTimeout(passOn, TOGETHER_MS);
      }
    } catch (error) {
      reason = reasonOf(error);
    }
    clearTimeout(timer);
    passOn();
    say({ k: "end", n, reason });
  };
  const joined = (pieces: Uint8Array[]): Uint8Array<ArrayBuffer> => {
    const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let end = 0;
    for (const piece of pieces) {
      whole.set(piece, end);
      end += piece.length;
    }
    return whole;
  };
  const reasonOf = (error: unknown): "aborted" | "failed" =>
    error instanceof DOMException && error.name === "AbortError" ? "aborted" : "failed";

  const announce = async (
    n: number,
    method: string,
    url: string,
    body: string | Promise<string>,
  ): Promise<void> => {
    if (typeof body === "string") return say({ k: "request", n, method, url, body });
    say({ k: "request", n, method, url, body: await body.catch(() => "") });
  };

  /** Look at a call before it is made, since a Request's body can be read but once. */
  const before = (input: unknown, init: RequestInit | undefined) => {
    const request = input instanceof Request ? input : undefined;
    const method = (init?.method ?? request?.method ?? "GET").toUpperCase();
    const url = absolute(request?.url ?? (input as string));
    const endpoint = endpointFor(endpoints, method, url);
    if (!endpoint) return { method, url, n: 0, announced: Promise.resolve() };
    const n = ++requests;
    const body = init?.body ?? (request?.body ? request.clone() : undefined);
    const text = body instanceof Request ? body.text() : bodyOf(body);
    return { method, url, n, announced: announce(n, method, url, text) };
  };

  const after = (call: ReturnType<typeof before>, answer: Promise<Response>) => {
    if (call.n > 0) {
      answer.then(
        (response) => void readAll(call.n, response, call.announced),
        (error: unknown) => say({ k: "end", n: call.n, reason: reasonOf(error) }),
      );
    } else if (call.method === "POST") {
      // A stream at an unknown address: that is how a site's move shows.
      answer.then(
        (response) => {
          const type = response.headers.get("content-type") ?? "";
          if (/event-stream|ndjson/.test(type)) say({ k: "odd", url: call.url });
        },
        () => {},
      );
    }
  };

  // Methods of an object keep their names, as the page may look at them.
  const nativeFetch = window.fetch;
  const wrapped = {
    fetch(this: unknown, input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
      let call: ReturnType<typeof before> | undefined;
      if (listening) quietly(() => (call = before(input, init)));
      const answer = Reflect.apply(nativeFetch, this, arguments) as Promise<Response>;
      if (call) quietly(() => after(call!, answer));
      return answer;
    },
    open(this: XMLHttpRequest, method: string, url: string | URL): void {
      quietly(() => opened.set(this, { method: method.toUpperCase(), url: absolute(url) }));
      return Reflect.apply(open, this, arguments) as void;
    },
    send(this: XMLHttpRequest, body?: unknown): void {
      if (listening) quietly(() => watch(this, body));
      return Reflect.apply(send, this, arguments) as void;
    },
  };

  // A copy would keep a request alive that the page has let go of: it ends with the page's own stream.
  const copies = new WeakMap<object, () => void>();
  const { getReader, pipeThrough, cancel } = ReadableStream.prototype;
  const cancelReader = ReadableStreamDefaultReader.prototype.cancel;
  const passedOn = <T extends object>(from: object, to: T): T => {
    const stop = copies.get(from);
    if (stop) copies.set(to, stop);
    return to;
  };
  const ending = {
    getReader(this: ReadableStream): object {
      return passedOn(this, Reflect.apply(getReader, this, arguments) as object);
    },
    pipeThrough(this: ReadableStream): object {
      return passedOn(this, Reflect.apply(pipeThrough, this, arguments) as object);
    },
    cancel(this: ReadableStream): Promise<void> {
      if (!this.locked) copies.get(this)?.();
      return Reflect.apply(cancel, this, arguments) as Promise<void>;
    },
  };
  const reading = {
    cancel(this: ReadableStreamDefaultReader): Promise<void> {
      copies.get(this)?.();
      return Reflect.apply(cancelReader, this, arguments) as Promise<void>;
    },
  };
  Object.assign(ReadableStream.prototype, ending);
  Object.assign(ReadableStreamDefaultReader.prototype, reading);

  const opened = new WeakMap<XMLHttpRequest, { method: string; url: string }>();
  const { open, send } = XMLHttpRequest.prototype;
  window.fetch = wrapped.fetch;
  XMLHttpRequest.prototype.open = wrapped.open as typeof open;
  XMLHttpRequest.prototype.send = wrapped.send as typeof send;

  const watch = (xhr: XMLHttpRequest, body: unknown): void => {
    const call = opened.get(xhr);
    if (!call || !endpointFor(endpoints, call.method, call.url)) return;
    const n = ++requests;
    let seen = 0;
    let reason: "done" | "aborted" | "failed" = "done";
    void announce(n, call.method, call.url, bodyOf(body));
    const more = () => {
      if (xhr.responseType !== "" && xhr.responseType !== "text") return;
      const text = xhr.responseText;
      if (text.length > seen) say({ k: "data", n, data: text.slice(seen) });
      seen = text.length;
    };
    xhr.addEventListener("progress", () => quietly(more));
    xhr.addEventListener("abort", () => (reason = "aborted"));
    xhr.addEventListener("error", () => (reason = "failed"));
    xhr.addEventListener("loadend", () =>
      quietly(() => {
        say({ k: "head", n, status: xhr.status });
        if (reason !== "aborted") more();
        say({ k: "end", n, reason });
      }),
    );
  };

  window.WebSocket = new Proxy(window.WebSocket, {
    construct(target, args: [string | URL, ...unknown[]], newTarget) {
      const socket = Reflect.construct(target, args, newTarget) as WebSocket;
      quietly(() => {
        if (!endpointFor(endpoints, "WS", socket.url)) return;
        const n = ++requests;
        say({ k: "request", n, method: "WS", url: socket.url, body: "" });
        socket.addEventListener("message", (event: MessageEvent<unknown>) => {
          const { data } = event;
          if (listening && typeof data === "string") quietly(() => say({ k: "data", n, data }));
        });
        socket.addEventListener("close", () => quietly(() => say({ k: "end", n, reason: "done" })));
      });
      return socket;
    },
  });
})();
