// Calls of the API from a page: by the session, in its one shape of errors.

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
  const answer = await fetch(url, {
    method, signal, headers: sent, credentials: "same-origin",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const data = answer.headers.get("Content-Type")?.includes("json") ? await answer.json() : null;
  if (answer.ok) return { data, headers: answer.headers, status: answer.status };
  const errors = data?.errors ?? [{ code: "error", detail: `The server answered ${answer.status}.` }];
  throw new ApiError(answer.status, errors, answer.headers);
}

/** Tell the reader something for a while; `kind` may be "error". */
export function notice(text, kind = "") {
  const element = document.createElement("p");
  element.className = `notice ${kind}`;
  element.textContent = text;
  document.getElementById("notices").append(element);
  setTimeout(() => element.remove(), kind === "error" ? 10_000 : 4_000);
}
