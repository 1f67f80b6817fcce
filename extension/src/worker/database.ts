// IndexedDB with promises. A write has returned only when it is on disk.

const NAME = "memory-layer";
const VERSION = 1;

export type StoreName = "turns" | "deliveries" | "bodies" | "notes" | "health";

let opened: Promise<IDBDatabase> | undefined;

function open(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      const turns = request.result.createObjectStore("turns", { keyPath: "key" });
      turns.createIndex("byId", "id");
      turns.createIndex("byConversation", ["provider", "conversationId"]);
      turns.createIndex("byTime", "changedAt");
      request.result.createObjectStore("deliveries", { keyPath: "key" });
      // The texts lie apart: what is due can be told without reading megabytes.
      request.result.createObjectStore("bodies");
      request.result.createObjectStore("notes");
      request.result.createObjectStore("health");
    };
    request.onsuccess = () => {
      request.result.onclose = () => (opened = undefined);
      resolve(request.result);
    };
    request.onerror = () => {
      opened = undefined;
      reject(request.error ?? new Error("IndexedDB does not open"));
    };
  });
  return opened;
}

export function got<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB does not answer"));
  });
}

/** Run `work` in one transaction; it may await nothing but requests of that transaction. */
export async function transaction<T>(
  stores: StoreName[],
  mode: "readonly" | "readwrite",
  work: (store: (name: StoreName) => IDBObjectStore) => Promise<T>,
): Promise<T> {
  const database = await open();
  const running = database.transaction(stores, mode, { durability: "strict" });
  const finished = new Promise<void>((resolve, reject) => {
    running.oncomplete = () => resolve();
    running.onabort = () => reject(running.error ?? new Error("IndexedDB gave up"));
  });
  try {
    const result = await work((name) => running.objectStore(name));
    await finished;
    return result;
  } catch (error) {
    finished.catch(() => {});
    try {
      running.abort();
    } catch {
      // It had ended already.
    }
    throw error;
  }
}

export async function note<T>(name: string): Promise<T | undefined> {
  return transaction(["notes"], "readonly", (store) =>
    got(store("notes").get(name) as IDBRequest<T | undefined>),
  );
}

export async function setNote(name: string, value: unknown): Promise<void> {
  await transaction(["notes"], "readwrite", async (store) => {
    store("notes").put(value, name);
  });
}
