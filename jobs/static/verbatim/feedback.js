// What people say of a transcript: stars, and where it is wrong. Nothing here touches the text.
import { call, inWords, notice } from "./api.js";
import { clock } from "./times.js";
import { lastUpTo, offsetIn } from "./words.js";

/**
 * Set up the rating under the text, and the reports. `parts` are `{index, section, element, start}`;
 * `wordsOf(part)` promises the words of one with their places.
 */
export function feedback(jobId, parts, wordsOf) {
  rate(document.querySelector("#rating form"), `/transcript/${jobId}/rating`);
  reportMistakes(document.getElementById("mistake"), `/transcript/${jobId}/mistakes`, parts, wordsOf);
}

/** Stars are saved at once, the comment when its field is left. The last that was wanted wins. */
function rate(form, url) {
  const { stars, comment } = form.elements;
  const [more, said] = [form.querySelector(".more"), form.querySelector(".said")];
  const wanted = () => (stars.value ? JSON.stringify([Number(stars.value), comment.value.trim()]) : "");
  let stored = wanted();
  let saving = false;

  async function save() {
    if (saving) return; // the loop of the one that saves sees what is wanted now
    saving = true;
    said.classList.remove("error");
    try {
      while (wanted() !== stored) {
        const now = wanted();
        const [rating, text] = now ? JSON.parse(now) : [];
        await (now ? call("PUT", url, { body: { stars: rating, comment: text } }) : takeBack());
        stored = now;
        said.textContent = now ? said.dataset.saved : said.dataset.taken;
      }
    } catch (error) {
      said.textContent = inWords(error);
      said.classList.add("error");
    }
    saving = false;
  }

  async function takeBack() {
    await call("DELETE", url).catch((error) => {
      if (error.status !== 404) throw error; // another window was first
    });
  }

  form.addEventListener("change", () => {
    more.hidden = !stars.value;
    save();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save();
  });
  form.querySelector(".take-back").addEventListener("click", () => {
    form.querySelector("input").focus(); // the button goes, and the keyboard is not to be lost
    for (const star of stars) star.checked = false;
    comment.value = "";
    more.hidden = true;
    save();
  });
  document.addEventListener("visibilitychange", () => document.hidden && save());
}

function reportMistakes(dialog, url, parts, wordsOf) {
  const form = dialog.querySelector("form");
  const place = dialog.querySelector(".place");
  const problem = dialog.querySelector("[role=alert]");
  const [here, send] = [document.getElementById("report-here"), form.querySelector("[type=submit]")];
  const { kind, heard, meant, comment } = form.elements;
  let selected = null; // what is selected in a part: {part, from, text}
  let told = null; // what the form is about: {part, from, text, start}; null: the whole

  document.addEventListener("selectionchange", () => {
    if (dialog.open) return;
    const selection = getSelection();
    const part = parts.find(({ element }) => element.contains(selection.anchorNode));
    if (part) selected = selectedIn(part, selection);
    else if (selection.rangeCount) selected = null; // without a range the focus only went elsewhere
    here.hidden = !selected;
  });

  function open() {
    if (selected && (selected.part !== told?.part || selected.from !== told.from || selected.text !== told.text)) {
      form.reset();
      told = { ...selected, start: startOf(selected) };
      heard.value = selected.text.slice(0, heard.maxLength);
    }
    show();
    problem.hidden = true;
    const [caret] = getSelection().rangeCount ? [getSelection().getRangeAt(0).cloneRange()] : [];
    dialog.addEventListener("close", () => restore(caret), { once: true });
    dialog.showModal();
    (told ? meant : kind).focus();
  }

  /** The browser gives the focus back, but not the place in the text. */
  function restore(caret) {
    if (!caret || !parts.some(({ element }) => element === document.activeElement)) return;
    getSelection().removeAllRanges();
    getSelection().addRange(caret);
  }

  async function show() {
    place.hidden = !told;
    if (!told) return;
    const about = told;
    const name = `${place.dataset.part} ${about.part.index + 1}`;
    place.textContent = name;
    const start = await about.start;
    if (about === told && start !== null) place.textContent = `${name}, ${clock(start)}`;
  }

  /** When the first word was spoken, else the part; null where not even that is known. */
  async function startOf({ part, from }) {
    if (part.start === null) return null;
    const words = await wordsOf(part).catch(() => []);
    return lastUpTo(words, "from", from)?.start ?? part.start;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    try {
      await call("POST", url, { body: {
        kind: kind.value, heard: heard.value, meant: meant.value, comment: comment.value,
        index: told?.part.index ?? null, startTime: told ? await told.start : null,
      } });
      form.reset();
      told = null;
      dialog.close();
      notice(send.dataset.thanks);
    } catch (error) {
      problem.textContent = inWords(error);
      problem.hidden = false;
    }
    send.disabled = false;
  });
  form.querySelector(".cancel").addEventListener("click", () => dialog.close());
  for (const button of [here, document.getElementById("report")]) {
    button.addEventListener("click", open);
    // Or it would take the caret away from the text.
    button.addEventListener("mousedown", (event) => event.preventDefault());
  }
  document.addEventListener("keydown", (event) => {
    if (!event.altKey || event.ctrlKey || event.metaKey || event.code !== "KeyM") return;
    event.preventDefault();
    if (!document.querySelector("dialog[open]")) open();
  });
}

/** What of a part is selected; null where it is nothing, or more than this part. */
function selectedIn(part, selection) {
  const range = selection.rangeCount ? selection.getRangeAt(0) : null;
  const text = range ? range.toString().trim() : "";
  if (!text || !part.element.contains(range.endContainer) || !part.element.contains(range.startContainer)) return null;
  const lead = range.toString().length - range.toString().trimStart().length;
  return { part, text, from: offsetIn(part.element, range.startContainer, range.startOffset) + lead };
}
