// Unsaved text that cannot be saved (now): it is shown, to be copied or discarded.
import { Drafts } from "./drafts.js";
import { fill, gettext } from "./language.js";

const section = document.getElementById("unsaved");

/** Show what was typed in parts; `isElsewhere(index)` tells of which the editor takes care. */
export function showUnsaved(isElsewhere = () => false) {
  const drafts = new Drafts(section.dataset.user, section.dataset.job);
  const shown = drafts.all().filter(({ index }) => !isElsewhere(index));
  section.hidden = !shown.length;
  section.querySelector("ul").replaceChildren(...shown.map(({ index, text }) => {
    const [item, title, words, discard] = ["li", "strong", "p", "button"].map((name) => document.createElement(name));
    title.textContent = fill(gettext("Part %(number)s"), { number: index + 1 });
    words.textContent = text;
    Object.assign(discard, { type: "button", className: "quiet", textContent: gettext("Discard") });
    discard.setAttribute("aria-label", fill(gettext("Discard the text of part %(number)s"), { number: index + 1 }));
    discard.addEventListener("click", () => { drafts.drop(index); showUnsaved(isElsewhere); });
    item.append(title, words, discard);
    return item;
  }));
}

if (section?.dataset.alone !== undefined) showUnsaved(); // on a page without an editor
