// The list keeps itself up to date: whatever happens to a job, the server draws the list anew.
import { notice } from "./api.js";
import { gettext } from "./language.js";
import { morph } from "./morph.js";
import { watch } from "./socket.js";
import { clock, localiseTimes } from "./times.js";

const CALM = 300; // milliseconds in which events gather
const AGAIN = 5000; // until the server is asked anew after it was away

let pending = null;
let asked = null; // an AbortController, while an answer is on its way
let filtering = false; // htmx asks for a list of another filter
let heard = false; // something happened since it asked
let refused = false; // the socket was closed for good, as nobody is signed in

function refreshSoon(wait = CALM) {
  if (filtering) heard = true;
  else pending ??= setTimeout(refresh, wait);
}

/** Of two answers the one that was asked for last counts, and none of them for another address. */
async function refresh() {
  const address = location.href;
  forget();
  const mine = asked = new AbortController();
  try {
    const answer = await fetch(address, { credentials: "same-origin", signal: mine.signal });
    const text = await answer.text();
    if (mine !== asked) return;
    asked = null;
    if (answer.redirected) return signedOut();
    if (!answer.ok) return refreshSoon(AGAIN);
    if (address !== location.href) return refreshSoon();
    if (refused) listen(); // signed in again, in another window
    show(new DOMParser().parseFromString(text, "text/html"));
  } catch {
    if (mine !== asked) return;
    asked = null;
    refreshSoon(AGAIN);
  }
}

function forget() {
  clearTimeout(pending);
  asked?.abort();
  pending = asked = null;
}

function show(fresh) {
  const list = fresh.getElementById("list");
  if (!list) return;
  localise(list); // first: only what is really another text is touched
  morph(document.getElementById("list"), list);
  allowDownload();
}

/** Once something is chosen. */
function allowDownload() {
  const list = document.getElementById("list");
  const button = list.querySelector("[type=submit]");
  if (button) button.disabled = !list.querySelector("[name=job]:checked");
}

function signedOut() {
  notice(gettext("You are signed out. Sign in again to go on."), "error");
  window.addEventListener("focus", () => refreshSoon(), { once: true }); // after that, perhaps
}

function listen() {
  refused = false;
  watch("/ws/transcripts", {
    onMessage: ({ type }) => type !== "snapshot" && refreshSoon(),
    onState: (open) => open && refreshSoon(),
    onRefused: (code) => {
      if (code !== 4401) return;
      refused = true;
      signedOut();
    },
  });
}

function localise(root) {
  localiseTimes(root);
  for (const element of root.querySelectorAll("[data-seconds]")) {
    element.textContent = clock(Number(element.dataset.seconds));
  }
}

localise(document);
allowDownload();
document.addEventListener("change", allowDownload);
document.addEventListener("htmx:load", (event) => {
  localise(event.detail.elt);
  allowDownload();
});
document.addEventListener("htmx:beforeRequest", () => {
  filtering = true;
  heard = pending !== null || asked !== null;
  forget();
});
document.addEventListener("htmx:afterRequest", () => {
  filtering = false;
  if (heard) refreshSoon();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  if (new URL(event.detail.xhr.responseURL).pathname === location.pathname) return;
  event.detail.shouldSwap = false; // the page to sign in has no list
  signedOut();
});
listen();
