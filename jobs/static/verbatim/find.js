// Find and replace, over all parts. What is found is lit; the text itself is not touched by that.
import { fill, gettext } from "./language.js";
import { rangeIn } from "./words.js";

const found = globalThis.Highlight ? new Highlight() : null;
if (found) CSS.highlights.set("found", found);

/**
 * Where a text has the wanted words, as `[from, to]`. By an expression and not by lower case, in
 * which some letters are longer: İ is one of them, and here the same as i.
 */
function places(text, wanted, { whole }) {
  if (!wanted) return [];
  const spellings = new Set([wanted, wanted.normalize("NFC"), wanted.normalize("NFD")]);
  const expressions = [...spellings].map((spelling) =>
    spelling.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&").replace(/[iİ]/gi, "(?:i\u0307|[iİ])"));
  const [before, after] = whole ? ["(?<![\\p{L}\\p{M}\\p{N}])", "(?![\\p{L}\\p{M}\\p{N}])"] : ["", ""];
  const expression = new RegExp(`${before}(?:${expressions.join("|")})${after}`, "giu");
  return [...text.matchAll(expression)].map((match) => [match.index, match.index + match[0].length]);
}

const field = (id) => document.getElementById(id);
const options = () => ({ whole: field("whole-words").checked });

export function findIn(details, parts) {
  const input = field("find-text");
  const look = () => {
    found?.clear();
    const ranges = details.open ? parts.flatMap(({ element }) =>
      places(element.textContent, input.value, options()).map(([from, to]) => rangeIn(element, from, to))) : [];
    for (const range of ranges) found?.add(range);
    field("found").textContent = input.value ? fill(gettext("%(count)s found"), { count: ranges.length }) : "";
  };
  input.addEventListener("input", look);
  field("whole-words").addEventListener("change", look);
  field("parts").addEventListener("input", look);
  details.addEventListener("toggle", () => {
    look();
    if (details.open) input.focus();
  });
}

/** Gives how many were replaced. Each part is written once, and so undone at once. */
export function replaceAllIn(editor, parts) {
  const [wanted, by] = [field("find-text").value, field("replace-text").value];
  let count = 0;
  for (const { index, element } of parts) {
    const text = element.textContent;
    const found = element.isContentEditable ? places(text, wanted, options()) : [];
    if (!found.length) continue;
    count += found.length;
    const between = [0, ...found.map(([, to]) => to)].map((from, n) => text.slice(from, found[n]?.[0]));
    editor.write(index, 0, text.length, between.join(by));
  }
  editor.flush();
  return count;
}
