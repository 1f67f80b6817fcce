// From pieces of text to lines and server-sent events, wherever the pieces were cut.

export class Lines {
  #rest = "";

  /** Return the lines that `text` completes, without their line breaks. */
  push(text: string): string[] {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));
  }

  /** Return what stands behind the last line break. */
  end(): string[] {
    const rest = this.#rest;
    this.#rest = "";
    return rest === "" ? [] : [rest];
  }
}

export class ServerSentEvents {
  #lines = new Lines();
  #data: string[] = [];

  /** Return the data of the events that `text` completes. */
  push(text: string): string[] {
    return this.#read(this.#lines.push(text));
  }

  /** An event that lacks its blank line counts too: a cut stream may still say something. */
  end(): string[] {
    return this.#read([...this.#lines.end(), ""]);
  }

  #read(lines: string[]): string[] {
    const events: string[] = [];
    for (const line of lines) {
      if (line.startsWith("data:")) {
        this.#data.push(line.startsWith("data: ") ? line.slice(6) : line.slice(5));
      } else if (line === "" && this.#data.length > 0) {
        events.push(this.#data.join("\n"));
        this.#data = [];
      }
    }
    return events;
  }
}
