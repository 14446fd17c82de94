// What happens to the job while one looks: each part's text the moment that it is there.
import { gettext } from "./language.js";
import { watch } from "./socket.js";

const ENDS = new Set(["job.completed", "job.failed", "job.cancelled", "job.retried"]);
const TELLS = {
  started: () => gettext("Listening …"),
  pending: () => gettext("Trying again soon"),
  failed: () => gettext("This part is missing."),
  cancelled: () => gettext("Cancelled"),
};

export class Live {
  constructor(jobId, article, parts, { mayWrite, onText, onEdited, onChanged, onRefused }) {
    Object.assign(this, { article, parts, mayWrite, onText, onEdited, onChanged });
    this.sequence = Number(article.dataset.sequence);
    this.progress = document.getElementById("progress");
    this.#count();
    watch(`/ws/transcript/${jobId}`, {
      greeting: () => ({ since: this.sequence }),
      onMessage: (event) => this.#heard(event),
      onRefused,
    });
  }

  #heard(event) {
    if (event.type === "snapshot") { // it does not tell what came after our number
      if (event.sequence !== this.sequence) this.onChanged();
      return;
    }
    if (event.sequence) {
      if (event.sequence <= this.sequence) return;
      this.sequence = event.sequence;
    }
    if (ENDS.has(event.type)) return this.onChanged();
    if (event.type === "job.edited") return this.onEdited();
    if (event.type === "job.delayed") this.#status(gettext("delayed"));
    if (event.type === "job.resumed") this.#status(gettext("In Progress"));
    if (event.type.startsWith("chunk.")) this.#chunk(event);
  }

  #chunk({ type, data }) {
    const part = this.parts.find(({ index }) => index === data.index);
    if (type === "chunk.preview") return this.#preview(part, data.text);
    if (!part) return this.onChanged(); // the recording was cut: there are parts now
    const state = part.section.querySelector(".state");
    const status = type.slice("chunk.".length);
    part.section.dataset.status = { started: "in_progress" }[status] ?? status;
    state.hidden = status === "completed";
    state.textContent = TELLS[status]?.() ?? "";
    if (!this.mayWrite()) return this.#count(); // somebody's unsaved words stand there
    if (status === "completed" || part.element.classList.contains("preview")) part.element.textContent = data.text ?? "";
    this.#mark(part, false);
    if (status === "completed") this.onText(part.index);
    this.#count();
  }

  /** What is heard so far. It may come late: a part that is not listened to is past that. */
  #preview(part, text) {
    if (part?.section.dataset.status !== "in_progress" || !this.mayWrite()) return;
    part.section.querySelector(".state").textContent = TELLS.started(); // who comes meanwhile reads another word
    part.element.textContent = text;
    this.#mark(part, true);
  }

  #mark({ element }, isPreview) {
    element.classList.toggle("preview", isPreview);
    if (isPreview) element.setAttribute("aria-busy", "true"); // nobody is read half a text, again and again
    else element.removeAttribute("aria-busy");
  }

  #count() {
    if (!this.progress) return;
    const done = this.parts.filter(({ section }) => !["pending", "in_progress"].includes(section.dataset.status));
    this.progress.value = done.length;
  }

  #status(text) {
    document.getElementById("status").textContent = text;
  }
}
