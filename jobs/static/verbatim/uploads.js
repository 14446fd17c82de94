// Sending files: announced to the API, then put where it says, with progress, a few at once.
import { ApiError, call } from "./api.js";
import { fill, gettext } from "./language.js";

const AT_ONCE = 3;
const TRIES = 3;

/** A bucket did not answer, or its rules (CORS) let no page of ours send: a script cannot tell which. */
export class BucketNotReached extends TypeError {}

/**
 * Send files in turn; `onProgress(index, share)` hears of each, `onSent(index, path)` when it is there.
 * One that fails for want of a connection is tried again. Throws what the last try threw, once
 * nothing is under way any more.
 */
export async function sendAll(files, kind, { onProgress, onSent }) {
  const stopper = new AbortController();
  let next = 0;
  const sender = async () => {
    while (next < files.length && !stopper.signal.aborted) {
      const index = next++;
      onSent(index, await send(files[index], kind, (share) => onProgress(index, share), stopper.signal));
    }
  };
  const senders = Array.from({ length: Math.min(AT_ONCE, files.length) }, () =>
    sender().catch((error) => { stopper.abort(); throw error; }));
  const ended = await Promise.allSettled(senders);
  const failed = ended.find(({ reason }) => reason && reason.name !== "AbortError") ?? ended.find(({ reason }) => reason);
  if (failed) throw failed.reason;
}

async function send(file, kind, onProgress, signal) {
  const contentType = file.type.split(";")[0] || "application/octet-stream";
  for (let tries = 1; ; tries++) {
    try {
      const body = { fileName: file.name, sizeBytes: file.size, contentType, kind };
      const { data } = await call("POST", "/uploads", { body, signal });
      await put(data, file, onProgress, signal);
      return data.audioChunkPath ?? data.recordingPath;
    } catch (error) {
      const refused = error instanceof ApiError && error.status < 500;
      if (refused || signal?.aborted || tries === TRIES) throw error;
      await new Promise((wake) => setTimeout(wake, 1000 * tries));
    }
  }
}

/** By XMLHttpRequest: `fetch` does not tell how much has gone out. */
function put({ uploadUrl, headers }, file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", uploadUrl);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded / (event.total || 1));
    const isHere = new URL(uploadUrl, location.href).origin === location.origin;
    request.onerror = () => reject(isHere ? new TypeError("the connection broke") : new BucketNotReached());
    request.onabort = () => reject(new DOMException("Aborted", "AbortError"));
    request.onload = () => {
      if (request.status < 300) return resolve(onProgress(1));
      let errors = [{ code: "error", detail: fill(gettext("The upload was answered with %(status)s."), { status: request.status }) }];
      try { errors = JSON.parse(request.responseText).errors ?? errors; } catch { /* a bucket speaks XML */ }
      reject(new ApiError(request.status, errors, new Headers()));
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
