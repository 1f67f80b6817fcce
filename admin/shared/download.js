// A response of any size, saved to a file: nothing of it is held in the page.

// Pieces of this size are handed to the browser, which keeps blobs on disk.
const PIECE = 8 * 1024 * 1024;

/**
 * Ask where to save a file called `name`; call it while the click that wants it is fresh. Resolves to
 * a place that is written to as the bytes come, or, where a browser has none, is downloaded at the end;
 * rejects with an AbortError when nothing is to be saved.
 */
export async function choosePlace(name) {
  if (!window.showSaveFilePicker) return inPieces(name);
  const file = await window.showSaveFilePicker({ suggestedName: name });
  return file.createWritable();
}

/** Write the response's body to the place; `onProgress` hears how many bytes came. */
export async function save(response, place, onProgress) {
  let bytes = 0;
  const counted = new TransformStream({
    transform(chunk, next) {
      bytes += chunk.byteLength;
      onProgress(bytes);
      next.enqueue(chunk);
    },
  });
  // What breaks off leaves no file that looks whole.
  await response.body.pipeThrough(counted).pipeTo(place);
  return bytes;
}

function inPieces(name) {
  const pieces = [];
  let chunks = [];
  let held = 0;

  function toDisk() {
    pieces.push(new Blob(chunks));
    chunks = [];
    held = 0;
  }

  return new WritableStream({
    write(chunk) {
      chunks.push(chunk);
      held += chunk.byteLength;
      if (held >= PIECE) toDisk();
    },
    close() {
      toDisk();
      const address = URL.createObjectURL(new Blob(pieces));
      const link = document.createElement("a");
      link.href = address;
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    },
  });
}
