// Writing corrections down: by themselves, a moment after the last key, and over nobody else's.
import { ApiError, call } from "./api.js";

const PAUSE = 700; // milliseconds without a key before what was typed is sent
const AGAIN = 3000; // until the server is asked anew after it was away

/**
 * Texts of parts that people write in. `parts` are `{index, element}`; the editor tells:
 * `onState("saving" | "saved" | "away" | "")`, `onSaved(index)` once a part's words are to be asked
 * for anew, and asks by `resolve({index, before, theirs, mine})`, which gives the text to stand.
 */
export class Editor {
  constructor(jobId, parts, { onState, onSaved, resolve, onProblem }) {
    Object.assign(this, { url: `/transcript/${jobId}/text`, onState, onSaved, resolve, onProblem });
    this.parts = new Map(parts.map((part) => [part.index, part]));
    this.base = new Map(); // the text of each part in the revision that we know
    this.revision = null;
    this.dirty = new Set();
    this.timer = null;
    this.saving = null;
    for (const part of parts) {
      part.element.addEventListener("input", () => this.#touched(part.index));
      part.element.addEventListener("blur", () => this.flush());
    }
    window.addEventListener("beforeunload", (event) => { if (this.dirty.size) event.preventDefault(); });
    document.addEventListener("visibilitychange", () => document.hidden && this.flush());
  }

  async load() {
    const { data } = await call("GET", this.url);
    this.#take(data);
    return data;
  }

  /** What there is by now: of parts that nobody is writing in, it is shown. */
  async refresh() {
    if (!this.saving) await this.load().catch(() => {});
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
    return data;
  }

  #touched(index) {
    this.dirty.add(index);
    this.onState("");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), PAUSE);
  }

  async #save() {
    while (this.dirty.size) {
      const sent = [...this.dirty].map((index) => ({ index, text: textOf(this.parts.get(index).element) }));
      this.onState("saving");
      this.dirty.clear();
      try {
        const headers = { "If-Match": `"${this.revision}"` };
        const { data } = await call("PATCH", this.url, { body: { chunks: sent }, headers });
        this.#take(data);
        this.onState(this.dirty.size ? "" : "saved");
        for (const { index } of sent) this.onSaved(index);
      } catch (error) {
        for (const { index } of sent) this.dirty.add(index);
        if (error.code === "revision_conflict") await this.#settle(sent);
        else if (error instanceof ApiError && error.status < 500 && error.status !== 429) {
          this.onState("");
          return this.onProblem(error.message);
        } else {
          this.onState("away");
          await new Promise((wake) => setTimeout(wake, AGAIN));
        }
      }
    }
  }

  /** Somebody saved in between: only a part that both have changed is a question. */
  async #settle(sent) {
    const before = new Map(this.base);
    const { data } = await call("GET", this.url);
    for (const { index, text } of sent) {
      const theirs = data.chunks.find((chunk) => chunk.index === index)?.text ?? "";
      if (plain(theirs) === plain(before.get(index)) || plain(theirs) === plain(text)) continue;
      const chosen = await this.resolve({ index, before: before.get(index), theirs, mine: text });
      this.parts.get(index).element.textContent = chosen;
      if (chosen === theirs) this.dirty.delete(index);
    }
    this.#take(data);
  }

  #take(data) {
    this.revision = data.revision;
    for (const { index, text } of data.chunks) {
      this.base.set(index, text);
      const element = this.parts.get(index)?.element;
      if (element && !this.dirty.has(index) && plain(textOf(element)) !== plain(text)) {
        element.textContent = text;
        this.onSaved(index);
      }
    }
  }
}

/** As the server keeps it: spaces are no difference, so that nobody's caret jumps for one. */
const plain = (text) => text.split(/\s+/).filter(Boolean).join(" ");

/** A part's text without the line break that browsers leave at an end. */
export function textOf(element) {
  return element.textContent.replace(/\n$/, "");
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
