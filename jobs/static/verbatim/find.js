// Find and replace, over all parts. What is found is lit; the text itself is not touched by that.
import { fill, gettext } from "./language.js";
import { rangeIn } from "./words.js";

const found = globalThis.Highlight ? new Highlight() : null;
if (found) CSS.highlights.set("found", found);

/**
 * Where a text has the wanted words, as `[from, to]`. By an expression and not by lower case, in
 * which some letters are longer: İ is one of them, and here the same as i.
 */
function places(text, wanted) {
  if (!wanted) return [];
  const spellings = new Set([wanted, wanted.normalize("NFC"), wanted.normalize("NFD")]);
  const expressions = [...spellings].map((spelling) =>
    spelling.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&").replace(/[iİ]/gi, "(?:i\u0307|[iİ])"));
  return [...text.matchAll(new RegExp(expressions.join("|"), "giu"))].map((match) =>
    [match.index, match.index + match[0].length]);
}

export function findIn(details, parts) {
  const input = document.getElementById("find-text");
  const say = document.getElementById("found");
  const look = () => {
    found?.clear();
    const ranges = details.open ? parts.flatMap(({ element }) =>
      places(element.textContent, input.value).map(([from, to]) => rangeIn(element, from, to))) : [];
    for (const range of ranges) found?.add(range);
    say.textContent = input.value ? fill(gettext("%(count)s found"), { count: ranges.length }) : "";
  };
  input.addEventListener("input", look);
  details.addEventListener("toggle", look);
  document.getElementById("parts").addEventListener("input", look);
}

/** Each part from its end, so that the places before stay where they are. */
export function replaceAllIn(editor, parts) {
  const [wanted, by] = ["find-text", "replace-text"].map((id) => document.getElementById(id).value);
  for (const { index, element } of parts) {
    if (!element.isContentEditable) continue;
    for (const [from, to] of places(element.textContent, wanted).reverse()) editor.write(index, from, to, by);
  }
  editor.flush();
}
