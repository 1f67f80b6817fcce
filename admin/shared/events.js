// Server-sent events out of a response: what EventSource cannot do with a POST or a bearer.

/** Yield {name, data} of each event as it comes. Throws when the connection breaks off. */
export async function* events(response) {
  let waiting = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (waiting + value).split("\n\n");
      waiting = parts.pop();
      for (const part of parts) yield eventOf(part);
    }
  } finally {
    // Whoever stops listening stops the server's work, too.
    reader.cancel().catch(() => {});
  }
}

function eventOf(part) {
  const event = { name: "message", data: null };
  for (const line of part.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    else if (line.startsWith("data: ")) event.data = JSON.parse(line.slice(6));
  }
  return event;
}
