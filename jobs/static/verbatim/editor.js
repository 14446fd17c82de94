// Writing corrections down: by themselves, a moment after the last key, and over nobody else's.
import { ApiError, call, secondsToWait } from "./api.js";

const PAUSE = 700; // milliseconds without a key before what was typed is sent
const AGAIN = 3000; // until the server is asked anew after it was away
const UNDECIDED = Symbol("nobody has said what is to stand");

/**
 * Texts of parts that people write in. `parts` are `{index, element}`, `drafts` keep what is not
 * saved. The editor tells: `onState("saving" | "saved" | "away" | "undecided" | "")`,
 * `onSaved(index)` once a part's words are to be asked for anew, `onText(data)` of all that the
 * server said of the text, `onProblem(error | null)`, and asks by
 * `resolve({index, before, theirs, mine})`, which gives the text to stand, or null for not now.
 */
export class Editor {
  constructor(jobId, parts, drafts, { onState, onSaved, onText, resolve, onProblem }) {
    Object.assign(this, { url: `/transcript/${jobId}/text`, drafts, onState, onSaved, onText, resolve, onProblem });
    this.parts = new Map(parts.map((part) => [part.index, part]));
    this.base = new Map(parts.map(({ index, element }) => [index, textOf(element)])); // what one has seen
    this.revision = null;
    this.dirty = new Set(); // parts with something that no call has taken along yet
    this.sent = new Map(); // parts whose text is on its way, or was when an answer got lost
    this.timer = null;
    this.saving = null;
    for (const part of parts) {
      part.element.addEventListener("input", () => this.#touched(part.index));
      part.element.addEventListener("blur", () => this.flush());
      part.element.addEventListener("beforeinput", keepInOneLine);
    }
    window.addEventListener("beforeunload", (event) => { if (this.dirty.size || this.saving) event.preventDefault(); });
    window.addEventListener("focus", () => this.flush()); // perhaps signed in anew, in another window
    document.addEventListener("visibilitychange", () => document.hidden && this.flush());
    for (const draft of drafts.all()) this.#goOn(draft);
  }

  async load() {
    const { data } = await call("GET", this.url);
    // What is typed by now was typed over the text of the page: saving it asks anew, and compares.
    if (this.dirty.size || this.saving) await this.flush();
    else this.#take(data);
  }

  /**
   * Show what somebody else has saved. Not while something of ours is unsaved: with a newer revision
   * in hand it would be written over theirs; so it meets them by a conflict.
   */
  async refresh() {
    if (!this.dirty.size && !this.saving) await this.load();
  }

  flush() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.dirty.size && !this.saving) this.saving = this.#save().finally(() => { this.saving = null; });
    return this.saving ?? Promise.resolve();
  }

  /** Change a part's text from a script, so that the browser's undo knows of it. */
  write(index, from, to, text) {
    const { element } = this.parts.get(index);
    element.focus();
    getSelection().setBaseAndExtent(...point(element, from), ...point(element, to));
    document.execCommand(text ? "insertText" : "delete", false, text);
  }

  /** Have the server change the text in a way of its own, and show what it is then. */
  async change(method, url, body) {
    await this.flush();
    const headers = { "If-Match": `"${this.revision}"` };
    const { data } = await call(method, url, { body, headers });
    this.#take(data);
  }

  /** The transcript is gone by one's own will, and with it what was typed. */
  forget() {
    for (const { index } of this.drafts.all()) this.drafts.drop(index);
    this.dirty.clear();
  }

  /** Take up a text that an earlier page could not save. */
  #goOn({ index, text, before, sent }) {
    const element = this.parts.get(index)?.element;
    if (!element?.isContentEditable) return;
    element.textContent = text;
    this.base.set(index, before);
    if (sent !== undefined) this.sent.set(index, sent);
    this.dirty.add(index);
  }

  #touched(index) {
    this.dirty.add(index);
    this.#keep(index);
    this.onState("");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), PAUSE);
  }

  /** Have the browser keep what is unsaved of a part. */
  #keep(index) {
    if (!this.dirty.has(index)) return this.drafts.drop(index);
    const text = textOf(this.parts.get(index).element);
    this.drafts.keep(index, { text, before: this.base.get(index), sent: this.sent.get(index) });
  }

  async #save() {
    let conflict = this.revision === null;
    while (this.dirty.size) {
      this.onState("saving");
      try {
        if (conflict) await this.#settle();
        conflict = false;
        if (this.dirty.size) await this.#send();
        this.onState(this.dirty.size ? "" : "saved");
        this.onProblem(null);
      } catch (error) {
        if (error === UNDECIDED) return this.onState("undecided"); // the next save asks again
        conflict ||= error.code === "revision_conflict";
        if (error.code === "revision_conflict") continue;
        if (error instanceof ApiError && error.status < 500 && error.status !== 429) {
          this.onState("");
          return this.onProblem(error);
        }
        this.onState("away");
        await new Promise((wake) => setTimeout(wake, Math.max(AGAIN, 1000 * secondsToWait(error))));
      }
    }
  }

  async #send() {
    const indexes = [...this.dirty];
    for (const index of indexes) {
      this.sent.set(index, textOf(this.parts.get(index).element));
      this.#keep(index);
    }
    const chunks = indexes.map((index) => ({ index, text: this.sent.get(index) }));
    this.dirty.clear();
    try {
      const headers = { "If-Match": `"${this.revision}"` };
      const { data } = await call("PATCH", this.url, { body: { chunks }, headers });
      this.sent.clear();
      this.#take(data);
    } catch (error) {
      for (const index of indexes) this.dirty.add(index);
      throw error;
    }
    for (const index of indexes) this.#keep(index);
    for (const index of indexes) this.onSaved(index);
  }

  /** Somebody saved in between: only a part that both have changed is a question. */
  async #settle() {
    const { data } = await call("GET", this.url);
    for (const index of [...this.dirty]) {
      const { element } = this.parts.get(index);
      const [before, mine] = [this.base.get(index), textOf(element)];
      const theirs = data.chunks.find((chunk) => chunk.index === index)?.text ?? "";
      // Perhaps it is what we sent ourselves, and only the answer got lost.
      const known = [before, mine, this.sent.get(index) ?? before].map(plain);
      if (known.includes(plain(theirs))) continue;
      const chosen = await this.resolve({ index, before, theirs, mine });
      if (chosen === null) throw UNDECIDED;
      element.textContent = chosen;
      if (chosen === theirs) this.dirty.delete(index);
      this.base.set(index, theirs); // which has been seen now
      this.#keep(index);
    }
    this.#take(data);
  }

  #take(data) {
    if (this.revision !== null && data.revision < this.revision) return; // an answer that was late
    this.revision = data.revision;
    for (const { index, text } of data.chunks) {
      this.base.set(index, text);
      const element = this.parts.get(index)?.element;
      if (element && !this.dirty.has(index) && plain(textOf(element)) !== plain(text)) {
        element.textContent = text;
        this.onSaved(index);
      }
    }
    this.onText(data);
  }
}

/** As the server keeps it: spaces are no difference, so that nobody's caret jumps for one. */
const plain = (text) => (text ?? "").split(/\s+/).filter(Boolean).join(" ");

/** A part's text without the line break that browsers leave at an end. */
export function textOf(element) {
  return element.textContent.replace(/\n$/, "");
}

/** A part is one paragraph: a line break would be kept as a space. */
function keepInOneLine(event) {
  if (event.inputType === "insertLineBreak" || event.inputType === "insertParagraph") event.preventDefault();
}

function point(element, offset) {
  let passed = 0;
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (offset <= passed + node.data.length) return [node, offset - passed];
    passed += node.data.length;
  }
  return [element, element.childNodes.length];
}
