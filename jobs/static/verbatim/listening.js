// Listening while reading: the spoken word is lit, a click on a word plays it.
import { call, notice } from "./api.js";
import { fill, gettext } from "./language.js";
import { Player } from "./player.js";
import { clock } from "./times.js";
import { lastUpTo, offsetIn, placed, rangeIn } from "./words.js";

const SPEEDS = [0.75, 1, 1.25, 1.5, 2];
const UNCERTAIN_BELOW = Number(document.getElementById("transcript").dataset.uncertain);
const ASK_AGAIN = 5000; // milliseconds after words could not be had: they are not while the job runs
const BEFORE_UNCERTAIN = 0.5; // seconds: one hears what leads to it

export class Listening {
  constructor(jobId, parts) {
    this.jobId = jobId;
    this.parts = parts.filter((part) => part.start !== null && part.seconds > 0);
    this.words = new Map(); // of a part: a promise of its words, each with its place
    this.player = new Player(this.parts.map(({ index, start, seconds }) => ({
      index, start, seconds, url: `/transcript/${jobId}/audio/${index}`,
    })));
    this.lit = globalThis.Highlight ? new Highlight() : null;
    this.doubtful = globalThis.Highlight ? new Highlight() : null;
    if (this.lit) {
      CSS.highlights.set("spoken", this.lit);
      CSS.highlights.set("uncertain", this.doubtful);
    }
    for (const part of parts) this.#stamp(part);
    if (!this.parts.length) return;
    this.#controls();
    this.#marks();
    for (const part of this.parts) part.element.addEventListener("click", (event) => this.#clicked(part, event));
  }

  /** The text of a part is another one now: its words are asked for when they are needed. */
  forget(index) {
    this.words.delete(index);
    const part = this.parts.find((each) => each.index === index);
    if (part?.seen) this.#mark(part);
  }

  wordsOf(part) {
    if (!this.words.has(part.index)) {
      const query = `from=${part.start}&to=${part.start + part.seconds}`;
      const asked = call("GET", `/transcript/${this.jobId}/words?${query}`).then(({ data }) =>
        placed(data.words.filter((word) => word.index === part.index), part.element.textContent));
      asked.catch(() => setTimeout(() => this.words.delete(part.index), ASK_AGAIN));
      this.words.set(part.index, asked);
    }
    return this.words.get(part.index);
  }

  #stamp(part) {
    const button = part.section.querySelector(".stamp");
    button.textContent = part.start === null ? "–" : clock(part.start);
    button.disabled = part.start === null || !part.seconds;
    button.addEventListener("click", () => { this.player.seek(part.start); this.player.play(); });
  }

  async #clicked(part, event) {
    const selection = getSelection();
    if (!selection.isCollapsed || event.detail > 1) return;
    const words = await this.wordsOf(part).catch(() => []);
    const word = lastUpTo(words, "from", offsetIn(part.element, selection.anchorNode, selection.anchorOffset));
    if (word) this.player.seek(word.start);
  }

  #controls() {
    const [bar, play, seek] = ["player", "play", "seek"].map((id) => document.getElementById(id));
    const speed = document.getElementById("speed");
    bar.hidden = false;
    seek.max = this.player.seconds;
    document.getElementById("whole").textContent = clock(this.player.seconds);
    play.addEventListener("click", () => this.player.toggle());
    document.getElementById("back").addEventListener("click", () => this.player.seek(this.player.time - 3));
    document.getElementById("uncertain").addEventListener("click", () => this.#nextUncertain());
    seek.addEventListener("input", () => this.player.seek(Number(seek.value)));
    speed.addEventListener("change", () => { this.player.speed = Number(speed.value); });
    this.player.addEventListener("missing", ({ detail }) => {
      notice(fill(gettext("The sound of part %(number)s cannot be had."), { number: detail.index + 1 }), "error");
    });
    this.player.addEventListener("change", () => {
      play.textContent = this.player.playing ? "❚❚" : "▶";
      play.setAttribute("aria-label", this.player.playing ? play.dataset.pause : play.dataset.play);
      this.#follow();
    });
    const keys = {
      KeyK: () => this.player.toggle(),
      KeyJ: () => this.player.seek(this.player.time - 3),
      KeyS: () => {
        this.player.speed = SPEEDS[(SPEEDS.indexOf(this.player.rate) + 1) % SPEEDS.length];
        speed.value = this.player.rate;
      },
      KeyN: () => this.#nextUncertain(),
    };
    document.addEventListener("keydown", (event) => {
      if (!event.altKey || event.ctrlKey || event.metaKey || !keys[event.code]) return;
      event.preventDefault();
      keys[event.code]();
    });
  }

  /** Light the word that is spoken, at each picture while it plays. */
  #follow() {
    document.getElementById("clock").textContent = clock(this.player.time);
    const seek = document.getElementById("seek");
    if (document.activeElement !== seek) seek.value = this.player.time;
    seek.setAttribute("aria-valuetext", clock(this.player.time));
    this.#light();
    if (!this.player.playing || this.following) return;
    this.following = true;
    const step = () => {
      this.following = this.player.playing;
      this.#light();
      if (this.following) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  async #light() {
    const part = lastUpTo(this.parts, "start", this.player.time);
    if (!part || !this.lit) return;
    const words = await this.wordsOf(part).catch(() => []);
    const word = lastUpTo(words, "start", this.player.time);
    if (word === this.now) return;
    this.now = word;
    this.lit.clear();
    const range = word && rangeIn(part.element, word.from, word.to);
    if (!range) return;
    this.lit.add(range);
    this.#keepInView(range, part);
  }

  #keepInView(range, part) {
    if (part.element.contains(document.activeElement) || document.activeElement === part.element) return;
    const { top, bottom } = range.getBoundingClientRect();
    if (top < 80 || bottom > innerHeight - 140) scrollTo({ top: scrollY + top - innerHeight / 3 });
  }

  /** Underline what the engine doubts, in parts that come into view. */
  #marks() {
    if (!this.doubtful) return;
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        const part = isIntersecting && this.parts.find(({ section }) => section === target);
        if (part && !part.seen) {
          part.seen = true;
          this.#mark(part);
        }
      }
    }, { rootMargin: "200px" });
    for (const { section } of this.parts) seen.observe(section);
  }

  async #mark(part) {
    const words = await this.wordsOf(part).catch(() => []);
    for (const range of part.doubtful ?? []) this.doubtful.delete(range);
    part.doubtful = words.filter(isUncertain).map((word) => rangeIn(part.element, word.from, word.to)).filter(Boolean);
    for (const range of part.doubtful) this.doubtful.add(range);
  }

  async #nextUncertain() {
    const now = this.player.time + BEFORE_UNCERTAIN + 0.05;
    for (const part of this.parts) {
      if (part.start + part.seconds < now) continue;
      const words = await this.wordsOf(part).catch(() => []);
      const word = words.find((each) => isUncertain(each) && each.start > now);
      if (!word) continue;
      this.player.seek(Math.max(0, word.start - BEFORE_UNCERTAIN));
      const range = rangeIn(part.element, word.from, word.to);
      part.element.focus({ preventScroll: true });
      getSelection().removeAllRanges();
      if (range) {
        getSelection().addRange(range);
        part.section.scrollIntoView({ block: "nearest" });
      }
      return;
    }
  }
}

const isUncertain = ({ confidence }) => confidence !== null && confidence < UNCERTAIN_BELOW;
