// The list keeps itself up to date: whatever happens to a job, its row is drawn anew by the server.
import { clock, localiseTimes } from "./times.js";
import { watch } from "./socket.js";

const CALM = 300; // milliseconds in which events gather

let pending = null;

function refreshSoon() {
  pending ??= setTimeout(refresh, CALM);
}

async function refresh() {
  pending = null;
  const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [rows, newRows] = [document.querySelector(".jobs"), fresh.querySelector(".jobs")];
  localise(fresh);
  if (!rows || !newRows) {
    const list = fresh.getElementById("list");
    if (list) document.getElementById("list").replaceWith(document.adoptNode(list));
    return;
  }
  const kept = new Map([...rows.children].map((row) => [row.id, row]));
  rows.replaceChildren(...[...newRows.children].map((row) => merged(kept.get(row.id), row)));
}

/** The row as it stands where nothing changed, so that focus and choice stay where they are. */
function merged(old, fresh) {
  const box = old?.querySelector("input");
  if (!old) return document.adoptNode(fresh);
  if (old.innerHTML !== fresh.innerHTML) {
    const focused = old.contains(document.activeElement);
    old.innerHTML = fresh.innerHTML;
    old.querySelector("input").checked = box.checked;
    if (focused) old.querySelector("input").focus();
  }
  return old;
}

function localise(root) {
  localiseTimes(root);
  for (const element of root.querySelectorAll("[data-seconds]")) {
    element.textContent = clock(Number(element.dataset.seconds));
  }
}

localise(document);
document.addEventListener("htmx:load", (event) => localise(event.detail.elt));
watch("/ws/transcripts", { onMessage: ({ type }) => type !== "snapshot" && refreshSoon(), onState: (open) => open && refreshSoon() });
