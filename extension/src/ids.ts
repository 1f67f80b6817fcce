// The id of a memory, derived as `core/memory_ids.py` derives it; test/memory_ids.json holds both.

/** UUIDv5 of `provider:messageId` in the namespace of the user's id. */
export async function memoryId(
  userId: string,
  provider: string,
  messageId: string,
): Promise<string> {
  const name = new TextEncoder().encode(`${provider}:${wellFormed(messageId)}`);
  const seed = new Uint8Array(16 + name.length);
  seed.set(bytesOf(userId));
  seed.set(name, 16);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-1", seed)).slice(0, 16);
  hash[6] = (hash[6]! & 0x0f) | 0x50;
  hash[8] = (hash[8]! & 0x3f) | 0x80;
  const hex = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function bytesOf(uuid: string): Uint8Array {
  const hex = uuid.replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/i.test(hex)) throw new TypeError("not a UUID");
  return Uint8Array.from({ length: 16 }, (_, n) => parseInt(hex.slice(2 * n, 2 * n + 2), 16));
}

// A high half without its low half, a low half without its high half, or NUL.
const UNKEPT = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\0/g;

/** Put U+FFFD for what the server cannot keep; nothing else changes. */
export function wellFormed(text: string): string {
  return text.replace(UNKEPT, "\ufffd");
}
