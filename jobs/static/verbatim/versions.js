// The versions of a text, and going back to one.
import { call } from "./api.js";
import { gettext } from "./language.js";
import { localiseTimes } from "./times.js";

/** Gives a function that shows them anew, where they are shown. */
export function versionsIn(details, jobId, editor, onProblem) {
  const list = details.querySelector("ol");
  let asked = 0; // of several answers the last one that was asked for counts

  async function draw() {
    if (!details.open) return;
    const mine = ++asked;
    const { data } = await call("GET", `/transcript/${jobId}/revisions?limit=100`);
    if (mine !== asked) return;
    const rows = data.results.map(({ revision, userId, time }) => row(revision, userId, time));
    const focused = list.contains(document.activeElement);
    list.replaceChildren(...rows, row(0, "", null));
    if (focused) details.querySelector("summary").focus();
    localiseTimes(list);
  }

  function row(revision, who, time) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const when = document.createElement("time");
    if (time) when.dateTime = time;
    item.append(revision ? `${who} ` : `${gettext("As recognised")} `, when, " ");
    button.type = "button";
    button.className = "quiet";
    button.textContent = gettext("Restore");
    button.disabled = revision === editor.revision;
    button.addEventListener("click", () => restore(revision).catch(onProblem));
    item.append(button);
    return item;
  }

  async function restore(revision) {
    try {
      await editor.change("POST", `/transcript/${jobId}/revisions/${revision}/restore`);
      onProblem(null);
    } catch (error) {
      if (error.code === "revision_conflict") await editor.refresh();
      draw().catch(() => {}); // told by the first error
      throw error;
    }
  }

  details.addEventListener("toggle", () => editor.flush().then(draw).catch(onProblem));
  return () => draw().catch(onProblem);
}
