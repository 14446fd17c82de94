// A new transcription: which files, in which order, how recognised; then sent.
import { call, inWords } from "./api.js";
import { fill, gettext } from "./language.js";
import { recordWith } from "./recorder.js";
import { clock } from "./times.js";
import { BucketNotReached, sendAll } from "./uploads.js";

const limits = JSON.parse(document.getElementById("limits").textContent);
const engines = JSON.parse(document.getElementById("engines").textContent);
const form = document.getElementById("new");
const list = document.getElementById("parts");
const sendButton = document.getElementById("send");
const problem = document.getElementById("problem");

/** Files in spoken order: `{file, seconds, element}`; seconds null where the browser cannot tell. */
const parts = [];
let sending = false;
let left = false; // all is handed in

const isRecording = () => parts.length === 1 && isLong(parts[0]);
const isLarge = ({ file }) => file.size > limits.chunkBytes;
const isLong = (part) => isLarge(part) || part.seconds > limits.chunkSeconds;
const isSound = ({ file }) => !file.type || /^(audio|video|application)\//.test(file.type);

function reasonAgainst(part) {
  if (part.file.size === 0) return gettext("The file is empty.");
  if (!isSound(part)) return gettext("This is no recording.");
  if (parts.length > 1 && isLarge(part)) return fill(gettext("Larger than %(size)s, too much for one part of several: send it alone."), { size: megabytes(limits.chunkBytes) });
  if (parts.length > 1 && isLong(part)) return gettext("Too long for one part of several: send it alone.");
  if (part.file.size > limits.recordingBytes) return gettext("The file is too large.");
  if (part.seconds > limits.recordingSeconds) return gettext("The recording is too long.");
  return "";
}

function draw() {
  list.replaceChildren(...parts.map((part) => part.element));
  const reasons = parts.map(reasonAgainst);
  parts.forEach(({ element, file, seconds }, index) => {
    element.querySelector(".name").textContent = file.name;
    const size = megabytes(file.size);
    element.querySelector(".length").textContent = seconds === null ? size : `${clock(seconds)}, ${size}`;
    element.querySelector(".reason").textContent = reasons[index];
    element.querySelector(".up").disabled = sending || index === 0;
    element.querySelector(".down").disabled = sending || index === parts.length - 1;
    element.querySelector(".remove").disabled = sending;
    for (const button of element.querySelectorAll("button")) button.ariaLabel = `${button.title}: ${file.name}`;
  });
  const tooMany = parts.length > limits.chunks;
  sendButton.disabled = sending || !parts.length || tooMany || reasons.some(Boolean);
  show(tooMany ? fill(gettext("At most %(most)s parts; these are %(count)s."), { most: limits.chunks, count: parts.length }) : "");
  estimate();
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function estimate() {
  const seconds = parts.reduce((sum, part) => sum + (part.seconds ?? 0), 0);
  const price = engineNow().pricePerMinute;
  const isWhole = parts.every((part) => part.seconds !== null);
  const length = isWhole ? clock(seconds) : fill(gettext("at least %(time)s"), { time: clock(seconds) });
  const cost = ((seconds / 60) * price).toFixed(2);
  const both = price ? fill(gettext("%(time)s, about $%(cost)s"), { time: length, cost }) : length;
  document.getElementById("estimate").textContent = parts.length ? both : "";
}

function show(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

/** One for each submission as it is; paths are kept with the parts, and so are the same again. */
let submitted = { body: "", key: "" };
function keyFor(body) {
  const text = JSON.stringify(body);
  if (submitted.body !== text) submitted = { body: text, key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` };
  return submitted.key;
}

async function add(files) {
  if (sending) return;
  for (const file of files) {
    const element = document.getElementById("part").content.firstElementChild.cloneNode(true);
    const part = { file, seconds: file.seconds ?? null, element };
    parts.push(part);
    element.draggable = true;
    element.querySelector(".up").addEventListener("click", () => move(part, -1, ".up"));
    element.querySelector(".down").addEventListener("click", () => move(part, 1, ".down"));
    element.querySelector(".remove").addEventListener("click", () => remove(part));
    element.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/x-part", parts.indexOf(part)));
    element.addEventListener("drop", (event) => dropped(event, part));
    if (part.seconds === null) secondsOf(file).then((seconds) => { part.seconds = seconds; draw(); });
  }
  draw();
}

function move(part, by, button) {
  const from = parts.indexOf(part);
  parts.splice(from, 1);
  parts.splice(from + by, 0, part);
  draw();
  const again = part.element.querySelector(button);
  (again.disabled ? part.element.querySelector(button === ".up" ? ".down" : ".up") : again).focus();
}

function remove(part) {
  const index = parts.indexOf(part);
  parts.splice(index, 1);
  draw();
  (parts[Math.min(index, parts.length - 1)]?.element.querySelector(".remove") ?? document.getElementById("files")).focus();
}

function dropped(event, onto) {
  const from = event.dataTransfer.getData("text/x-part");
  if (from === "") return; // files: the whole area takes them
  event.preventDefault();
  event.stopPropagation();
  const [part] = parts.splice(Number(from), 1);
  parts.splice(parts.indexOf(onto) + (Number(from) <= parts.indexOf(onto) ? 1 : 0), 0, part);
  draw();
}

/** How long a file plays, as the browser knows it; null where it does not. */
function secondsOf(file) {
  return new Promise((resolve) => {
    const audio = new Audio();
    const done = (seconds) => { URL.revokeObjectURL(audio.src); resolve(Number.isFinite(seconds) ? seconds : null); };
    audio.preload = "metadata";
    audio.onloadedmetadata = () => done(audio.duration);
    audio.onerror = () => done(NaN);
    audio.src = URL.createObjectURL(file);
  });
}

const engineNow = () => engines.find((engine) => engine.name === form.engine.value);

function adaptToEngine() {
  const engine = engineNow();
  const names = new Intl.DisplayNames(undefined, { type: "language" });
  const common = ["en", "de", "fr", "es", "it", "pt", "nl", "pl", "tr", "ru", "uk", "ar", "hi", "zh", "ja", "ko"];
  const chosen = form.language.value;
  const own = form.language.options[0];
  form.language.replaceChildren(own, ...(engine.languages ?? common).map((tag) => new Option(names.of(tag), tag)));
  form.language.value = [...form.language.options].some((option) => option.value === chosen) ? chosen : "";
  document.getElementById("vocabulary").hidden = !engine.vocabulary;
  document.getElementById("diarize").hidden = !engine.diarize;
  estimate();
}

async function send(event) {
  event.preventDefault();
  if (sendButton.disabled) return;
  sending = true;
  show("");
  draw();
  const recording = isRecording();
  const bars = parts.map(({ element }) => element.querySelector("progress"));
  for (const [index, bar] of bars.entries()) Object.assign(bar, { hidden: false, value: parts[index].path ? 1 : 0 });
  try {
    const kind = recording ? "recording" : "chunk";
    const unsent = parts.filter((part) => part.kind !== kind);
    await sendAll(unsent.map((part) => part.file), kind, {
      onProgress: (index, share) => { unsent[index].element.querySelector("progress").value = share; },
      onSent: (index, path) => Object.assign(unsent[index], { path, kind }),
    });
    const paths = parts.map((part) => part.path);
    const engine = engineNow();
    const vocabulary = form.vocabulary.value.split("\n").map((term) => term.trim()).filter(Boolean);
    const body = {
      ...(recording ? { recordingPath: paths[0] } : { audioChunkPaths: paths }),
      userId: form.dataset.user,
      engine: engine.name,
      ...(form.title.value.trim() && { title: form.title.value.trim() }),
      ...(form.language.value && { language: form.language.value }),
      ...(engine.vocabulary && vocabulary.length && { vocabulary }),
      ...(engine.diarize && form.diarize.checked && { diarize: true }),
    };
    // Pressed again after an answer that got lost, it makes no second job of the same files.
    const headers = { "Idempotency-Key": keyFor(body) };
    const { data } = await call("POST", "/transcribe", { body, headers });
    left = true;
    location.assign(form.dataset.next.replace("00000000-0000-0000-0000-000000000000", data.jobId));
  } catch (error) {
    sending = false;
    draw();
    show(why(error));
    for (const bar of bars) bar.hidden = true;
  }
}

function why(error) {
  if (error instanceof BucketNotReached) return gettext("The storage of audio was not reached, or takes no files from this page. Nothing is lost: try again.");
  return error instanceof TypeError ? gettext("The server was not reached. Nothing is lost: try again.") : inWords(error);
}

const drop = document.getElementById("drop");
drop.addEventListener("dragover", (event) => event.preventDefault());
drop.addEventListener("drop", (event) => { event.preventDefault(); add(event.dataTransfer.files); });
const chosen = document.getElementById("files");
const takeChosen = () => { add(chosen.files); chosen.value = ""; };
chosen.addEventListener("change", takeChosen);
if (chosen.files.length) takeChosen(); // before this script was there
recordWith(document.getElementById("record"), {
  onFile: (file, seconds) => add([Object.assign(file, { seconds })]),
  onTime: (seconds) => { document.getElementById("recorded").textContent = seconds === null ? "" : `● ${clock(seconds)}`; },
  onError: () => show(gettext("The microphone cannot be used.")),
});
form.engine.addEventListener("change", adaptToEngine);
form.addEventListener("submit", send);
window.addEventListener("beforeunload", (event) => { if (parts.length && !left) event.preventDefault(); });
adaptToEngine();
draw();
