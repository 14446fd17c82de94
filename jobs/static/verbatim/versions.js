// The versions of a text, and going back to one.
import { call } from "./api.js";
import { localiseTimes } from "./times.js";

export function showVersions(details, jobId, editor, onProblem) {
  const list = details.querySelector("ol");

  async function draw() {
    await editor.flush();
    const { data } = await call("GET", `/transcript/${jobId}/revisions?limit=100`);
    const rows = data.results.map(({ revision, userId, time }) => row(revision, userId, time));
    list.replaceChildren(...rows, row(0, "", null));
    localiseTimes(list);
  }

  function row(revision, who, time) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const when = document.createElement("time");
    if (time) when.dateTime = time;
    item.append(revision ? `${who} ` : "As recognised ", when, " ");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Restore";
    button.disabled = revision === editor.revision;
    button.addEventListener("click", () => restore(revision));
    item.append(button);
    return item;
  }

  async function restore(revision) {
    try {
      await editor.change("POST", `/transcript/${jobId}/revisions/${revision}/restore`);
      await draw();
    } catch (error) {
      onProblem(error.message);
    }
  }

  details.addEventListener("toggle", () => details.open && draw().catch((error) => onProblem(error.message)));
}
