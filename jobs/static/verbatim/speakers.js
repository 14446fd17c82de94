// Who spoke: a name that is given here holds for the whole transcript and all exports.
import { fill, gettext } from "./language.js";

/** Gives a function that shows the names as the server has them; what one is writing stays. */
export function speakersIn(details, editor, onProblem) {
  const fields = new Map(); // by label: an input, and the name that one has seen

  function show(speakers) {
    for (const [label, name] of Object.entries(speakers)) {
      const field = fields.get(label) ?? add(label);
      if (field.input.value === field.seen) field.input.value = name ?? "";
      field.seen = name ?? "";
    }
    details.hidden = !fields.size;
  }

  function add(label) {
    const [around, input] = [document.createElement("label"), document.createElement("input")];
    const field = { input, seen: "" };
    Object.assign(input, { maxLength: 100, autocomplete: "off" });
    input.addEventListener("change", () => save(label, field).catch(onProblem));
    around.append(/^\d+$/.test(label) ? fill(gettext("Speaker %(label)s"), { label }) : label, input);
    details.querySelector("div").append(around);
    fields.set(label, field);
    return field;
  }

  /** Over another one's words, but not over the name that somebody else gave to the same speaker. */
  async function save(label, field) {
    for (;;) {
      const before = field.seen;
      try {
        await editor.change("PATCH", editor.url, { speakers: { [label]: field.input.value.trim() || null } });
        field.input.value = field.seen;
        return onProblem(null);
      } catch (error) {
        if (error.code !== "revision_conflict") throw error;
        const known = editor.revision;
        await editor.refresh();
        if (field.seen === before && editor.revision !== known) continue;
        field.input.value = field.seen;
        throw error;
      }
    }
  }

  return show;
}
