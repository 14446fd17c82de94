// The page of one transcript: this module only brings its parts together.
import { call, notice } from "./api.js";
import { Editor } from "./editor.js";
import { feedback } from "./feedback.js";
import { findIn, replaceAllIn } from "./find.js";
import { Live } from "./live.js";
import { Listening } from "./listening.js";
import { ask } from "./conflict.js";
import { showSpeakers } from "./speakers.js";
import { showVersions } from "./versions.js";

const article = document.getElementById("transcript");
const jobId = article.dataset.job;
const ended = article.dataset.status !== "in_progress";
const problem = document.getElementById("problem");

function show(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

const parts = [...document.querySelectorAll(".part-text")].map((section) => ({
  index: Number(section.dataset.index),
  section,
  element: section.querySelector(".text"),
  start: section.dataset.start === "" ? null : Number(section.dataset.start),
  seconds: Number(section.dataset.seconds) || 0,
}));

const listening = new Listening(jobId, parts);
let editor = null;

if (ended) {
  const states = { saving: "Saving …", saved: "Saved", away: "The server is away; your text is kept and sent when it is back." };
  editor = new Editor(jobId, parts, {
    onState: (state) => { document.getElementById("saved").textContent = state ? `· ${states[state]}` : ""; },
    onSaved: (index) => listening.forget(index),
    onProblem: show,
    resolve: ask,
  });
  editor.load().then(({ speakers }) => showSpeakers(speakers, editor, show), (error) => show(error.message));
  showVersions(document.getElementById("versions"), jobId, editor, show);
  findIn(document.getElementById("find"), parts);
  document.getElementById("replace-all").addEventListener("click", () => replaceAllIn(editor, parts));
  feedback(jobId, parts, (part) => listening.wordsOf(part));
}

new Live(jobId, article, parts, {
  onText: (index) => listening.forget(index),
  onEdited: () => editor?.refresh(),
  onChanged: () => leaveFor(location.href),
  onRefused: (code) => { if (code === 4410) leaveFor(article.dataset.front); },
});

/** The page is drawn anew by the server, once nothing is left to be saved. */
async function leaveFor(address) {
  if (await isSaved()) location.assign(address);
}

async function isSaved() {
  await editor?.flush();
  return !editor?.dirty.size;
}

const acts = {
  retry: () => call("POST", `/transcript/${jobId}/retry`),
  cancel: () => call("POST", `/transcript/${jobId}/cancel`),
  delete: async () => {
    if (!confirm("Delete this transcript, and the sound that was handed in for it?")) return;
    await call("DELETE", `/transcript/${jobId}`);
    location.assign(article.dataset.front);
  },
};
for (const form of document.querySelectorAll("form[data-act]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    show("");
    if (form.dataset.act !== "delete" && !(await isSaved())) return;
    acts[form.dataset.act]().catch((error) => notice(error.message, "error"));
  });
}
