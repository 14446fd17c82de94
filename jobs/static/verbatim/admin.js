// The admin's front page keeps itself up to date: what has changed is drawn anew by the server.
const EVERY = 30_000; // milliseconds
const FOCUSABLE = "a, summary, [tabindex]";

async function renew() {
  if (document.hidden) return;
  const signal = AbortSignal.timeout(EVERY / 2);
  const answer = await fetch(location.href, { credentials: "same-origin", signal }).catch(() => null);
  const text = answer?.ok ? await answer.text().catch(() => "") : "";
  const fresh = new DOMParser().parseFromString(text, "text/html");
  if (!fresh.getElementById("now")) return lose();
  document.getElementById("now").classList.remove("stale");
  update(document.getElementById("told"), fresh.getElementById("told"));
  const parts = document.querySelectorAll("#now > [id]");
  const there = new Map([...parts].map((part) => [part.id, part]));
  for (const part of [...fresh.querySelectorAll("#now > [id]")]) {
    if (there.has(part.id)) update(there.get(part.id), part);
    else document.getElementById("now").append(document.adoptNode(part));
    there.delete(part.id);
  }
  for (const gone of there.values()) gone.remove();
}

/** What stands there is of then, and must not be taken for what is. */
function lose() {
  const told = document.getElementById("told");
  if (document.getElementById("now").classList.contains("stale")) return;
  document.getElementById("now").classList.add("stale");
  told.textContent = `The server has not answered, or you are signed out: all of this is of before. ${told.textContent}`;
  told.setAttribute("role", "alert");
}

/** Draw a part anew; what is open, focused or being selected stays so. */
function update(part, fresh) {
  const selection = getSelection();
  if (!selection.isCollapsed && selection.containsNode(part, true)) return;
  const focused = [...part.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  const details = part.querySelectorAll("details");
  fresh.querySelectorAll("details").forEach((each, n) => { each.open = details[n]?.open ?? false; });
  if (part.innerHTML === fresh.innerHTML) return;
  part.innerHTML = fresh.innerHTML;
  part.removeAttribute("role");
  part.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
}

setInterval(renew, EVERY);
document.addEventListener("visibilitychange", renew);
