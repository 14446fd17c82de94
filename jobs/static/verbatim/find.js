// Find and replace, over all parts. What is found is lit; the text itself is not touched by that.
import { rangeIn } from "./words.js";

const found = globalThis.Highlight ? new Highlight() : null;
if (found) CSS.highlights.set("found", found);

function* places(text, wanted) {
  const [where, what] = [text.toLowerCase(), wanted.toLowerCase()];
  for (let at = where.indexOf(what); what && at >= 0; at = where.indexOf(what, at + what.length)) yield at;
}

export function findIn(details, parts) {
  const input = document.getElementById("find-text");
  const say = document.getElementById("found");
  const look = () => {
    found?.clear();
    const ranges = details.open ? parts.flatMap(({ element }) =>
      [...places(element.textContent, input.value)].map((at) => rangeIn(element, at, at + input.value.length))) : [];
    for (const range of ranges) found?.add(range);
    say.textContent = input.value ? `${ranges.length} found` : "";
  };
  input.addEventListener("input", look);
  details.addEventListener("toggle", look);
  document.getElementById("parts").addEventListener("input", look);
}

/** Each part from its end, so that the places before stay where they are. */
export function replaceAllIn(editor, parts) {
  const [wanted, by] = ["find-text", "replace-text"].map((id) => document.getElementById(id).value);
  for (const { index, element } of parts) {
    if (element.contentEditable === "false" || !element.isContentEditable) continue;
    for (const at of [...places(element.textContent, wanted)].reverse()) editor.write(index, at, at + wanted.length, by);
  }
  editor.flush();
}
