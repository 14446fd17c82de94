// One timeline over the sound of all parts: each is a file of its own, the next is loaded ahead.

export class Player extends EventTarget {
  /** `parts`: `{index, start, seconds, url}` in order of their start. */
  constructor(parts) {
    super();
    this.parts = parts;
    this.current = 0;
    this.playing = false;
    this.rate = 1;
    this.players = [new Audio(), new Audio()];
    for (const audio of this.players) {
      audio.preload = "auto";
      audio.addEventListener("ended", () => audio === this.audio && this.#next());
      audio.addEventListener("error", () => this.#failed(audio));
      audio.addEventListener("timeupdate", () => audio === this.audio && this.#tell());
    }
  }

  get audio() { return this.players[this.current % 2]; }
  get part() { return this.parts[this.current]; }
  get seconds() { const last = this.parts.at(-1); return last ? last.start + last.seconds : 0; }
  get time() { return this.part ? this.part.start + this.audio.currentTime : 0; }

  async play() {
    this.#load(this.current, this.audio);
    this.playing = true;
    this.audio.playbackRate = this.rate;
    this.#tell();
    try {
      await this.audio.play();
      this.#load(this.current + 1, this.players[(this.current + 1) % 2]);
    } catch (error) {
      if (error.name === "NotAllowedError") this.pause(); // for any other there is an event
    }
  }

  pause() {
    this.playing = false;
    this.audio.pause();
    this.#tell();
  }

  toggle() {
    if (this.playing) return this.pause();
    if (this.audio.ended) this.seek(0); // only the last part ends without another after it
    return this.play();
  }

  set speed(rate) {
    this.rate = rate;
    this.audio.playbackRate = rate;
  }

  seek(time) {
    const wanted = Math.min(Math.max(0, time), this.seconds);
    let index = this.parts.findLastIndex((part) => part.start <= wanted);
    if (index < 0) index = 0;
    if (index !== this.current) {
      this.audio.pause();
      this.current = index;
    }
    this.#load(index, this.audio);
    const inside = wanted - this.part.start;
    const audio = this.audio;
    if (audio.readyState) audio.currentTime = inside;
    else audio.addEventListener("loadedmetadata", () => { audio.currentTime = inside; }, { once: true });
    if (this.playing) this.play();
    this.#tell();
  }

  #load(index, audio) {
    const part = this.parts[index];
    if (!part || audio.dataset.part === String(index)) return;
    audio.dataset.part = index;
    audio.src = part.url;
  }

  #next() {
    if (this.current + 1 >= this.parts.length) return this.pause();
    this.current += 1;
    this.#load(this.current, this.audio);
    this.audio.currentTime = 0;
    if (this.playing) this.play();
  }

  /** It stops there: what cannot be had now may be had when one presses play again. */
  #failed(audio) {
    if (!audio.dataset.part) return;
    delete audio.dataset.part;
    if (audio !== this.audio) return;
    this.pause();
    this.dispatchEvent(new CustomEvent("missing", { detail: this.part }));
  }

  #tell() { this.dispatchEvent(new Event("change")); }
}
