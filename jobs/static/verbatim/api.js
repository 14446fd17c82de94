// Calls of the API from a page: by the session, in its one shape of errors.
import { fill, gettext } from "./language.js";

const KEPT_ALIVE = 20_000; // characters, of 3 bytes at most: browsers let 64 KiB outlive a page

/** As the cookie has it now: who signs in anew in another window gets another one. */
function csrf() {
  return document.cookie.match(/(?:^|; )csrftoken=([^;]*)/)?.[1] ?? document.body.dataset.csrf;
}

/** What the API refused, with its own words. */
export class ApiError extends Error {
  constructor(status, errors, headers) {
    super(errors.map((error) => error.detail).join(" "));
    Object.assign(this, { status, errors, headers, code: errors[0]?.code });
  }
}

/**
 * Call the API. `body` is an object, sent as JSON.
 * Gives `{data, headers, status}`; throws ApiError for an answer that is no success, and
 * TypeError where the server is not reached.
 */
export async function call(method, url, { body, headers = {}, signal } = {}) {
  const sent = { Accept: "application/json", "X-CSRFToken": csrf(), ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  const answer = await fetch(url, {
    method, signal, headers: sent, credentials: "same-origin", body: text,
    keepalive: document.hidden && (text?.length ?? 0) <= KEPT_ALIVE, // the page may be on its way out
  });
  const data = answer.headers.get("Content-Type")?.includes("json") ? await answer.json() : null;
  if (answer.ok) return { data, headers: answer.headers, status: answer.status };
  const errors = data?.errors ?? [{ code: "error", detail: fill(gettext("The server answered %(status)s."), { status: answer.status }) }];
  throw new ApiError(answer.status, errors, answer.headers);
}

/** What went wrong, for a reader: the API itself speaks English, by its contract. */
export function inWords(error) {
  if (!(error instanceof ApiError)) return gettext("The server is not reached. Try again in a moment.");
  if (error.status >= 500) return gettext("The server cannot do that now. Try again in a moment.");
  return {
    not_authenticated: () => gettext("You are signed out. Sign in again to go on."),
    permission_denied: () => gettext("You may not do that; perhaps you are signed in as somebody else now."),
    not_found: () => gettext("There is nothing here that is yours."),
    erased: () => gettext("This transcript was deleted."),
    not_completed: () => gettext("The transcript is being made again; that can be done when it has ended."),
    revision_conflict: () => gettext("Somebody else has saved meanwhile, and nothing was overwritten. This is the newest: look, and try again."),
    throttled: () => fill(gettext("These were too many calls. Try again in %(seconds)s seconds."), { seconds: secondsToWait(error) }),
  }[error.code]?.() ?? error.message;
}

/** How long the server wants to be left alone. */
export const secondsToWait = (error) => Number(error.headers?.get("Retry-After")) || 1;

/** Tell the reader something for a while; `kind` may be "error". */
export function notice(text, kind = "") {
  const element = document.createElement("p");
  element.className = `notice ${kind}`;
  element.textContent = text;
  document.getElementById("notices").append(element);
  setTimeout(() => element.remove(), kind === "error" ? 10_000 : 4_000);
}
