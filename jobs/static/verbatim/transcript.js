// The page of one transcript: this module only brings its parts together.
import { ask } from "./conflict.js";
import { ApiError, call, inWords, notice } from "./api.js";
import { Drafts } from "./drafts.js";
import { Editor } from "./editor.js";
import { feedback } from "./feedback.js";
import { findIn, replaceAllIn } from "./find.js";
import { fill, gettext } from "./language.js";
import { Live } from "./live.js";
import { Listening } from "./listening.js";
import { closeMenus } from "./menus.js";
import { speakersIn } from "./speakers.js";
import { showUnsaved } from "./unsaved.js";
import { versionsIn } from "./versions.js";

const article = document.getElementById("transcript");
const jobId = article.dataset.job;
const ended = article.dataset.status !== "in_progress";
const problem = document.getElementById("problem");

/** Say what went wrong; null takes it back. */
function tell(error) {
  problem.textContent = error ? inWords(error) : "";
  problem.hidden = !error;
  if (error?.status !== 401) return;
  const link = Object.assign(document.createElement("a"), { href: article.dataset.signIn, target: "_blank" });
  link.textContent = gettext("Sign in");
  problem.append(" ", link);
}

const parts = [...document.querySelectorAll(".part-text")].map((section) => ({
  index: Number(section.dataset.index),
  section,
  element: section.querySelector(".text"),
  start: section.dataset.start === "" ? null : Number(section.dataset.start),
  seconds: Number(section.dataset.seconds) || 0,
}));

closeMenus(article);
const listening = new Listening(jobId, parts);
let editor = null;

if (ended) {
  const states = {
    saving: gettext("Saving …"),
    saved: gettext("Saved"),
    away: gettext("The server is away; your text is kept and sent when it is back."),
    undecided: gettext("Not saved: somebody else changed this part. You are asked again when you write on, or leave the text."),
  };
  editor = new Editor(jobId, parts, new Drafts(article.dataset.user, jobId), {
    onState: (state) => { document.getElementById("saved").textContent = state ? `· ${states[state]}` : ""; },
    onSaved: (index) => listening.forget(index),
    onText: ({ speakers }) => { showSpeakers(speakers); showVersions(); },
    onProblem: tell,
    resolve: ask,
  });
  const showSpeakers = speakersIn(document.getElementById("speakers"), editor, tell);
  const showVersions = versionsIn(document.getElementById("versions"), jobId, editor, tell);
  findIn(document.getElementById("find"), parts);
  document.getElementById("replace-all").addEventListener("click", () => {
    notice(fill(gettext("%(count)s replaced"), { count: replaceAllIn(editor, parts) }));
  });
  feedback(jobId, parts, (part) => listening.wordsOf(part));
  editor.load().catch(tell);
}
showUnsaved((index) => editor?.dirty.has(index));

new Live(jobId, article, parts, {
  mayWrite: () => !editor,
  onText: (index) => listening.forget(index),
  onEdited: () => editor?.refresh().catch(() => {}), // it is seen when one saves
  onChanged: () => leaveFor(location.href),
  onRefused: (code) => {
    if (code === 4410) leaveFor(location.href); // which says so
    if (code === 4401) tell(new ApiError(401, [{ code: "not_authenticated", detail: "" }]));
  },
});

/** The page is drawn anew by the server, once nothing is left to be saved. */
async function leaveFor(address) {
  if (!(await isSaved())) return;
  if (address === location.href) location.reload(); // with a fragment, to assign it would only scroll
  else location.assign(address);
}

async function isSaved() {
  await editor?.flush();
  return !editor?.dirty.size;
}

const acts = {
  retry: () => call("POST", `/transcript/${jobId}/retry`),
  cancel: () => call("POST", `/transcript/${jobId}/cancel`),
  delete: async () => {
    if (!confirm(gettext("Delete this transcript, and the sound that was handed in for it?"))) return;
    await call("DELETE", `/transcript/${jobId}`);
    editor?.forget();
    location.assign(article.dataset.front);
  },
};
for (const form of document.querySelectorAll("form[data-act]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    tell(null);
    if (form.dataset.act !== "delete" && !(await isSaved())) return;
    acts[form.dataset.act]().catch((error) => notice(inWords(error), "error"));
  });
}
