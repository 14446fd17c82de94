// Who spoke: a name that is given here holds for the whole transcript and all exports.

export function showSpeakers(speakers, editor, onProblem) {
  const details = document.getElementById("speakers");
  const labels = Object.keys(speakers);
  details.hidden = !labels.length;
  details.querySelector("div").replaceChildren(...labels.map((label) => {
    const field = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { value: speakers[label] ?? "", maxLength: 100, autocomplete: "off" });
    input.addEventListener("change", () => {
      const named = { [label]: input.value.trim() || null };
      editor.change("PATCH", editor.url, { speakers: named }).catch((error) => onProblem(error.message));
    });
    field.append(/^\d+$/.test(label) ? `Speaker ${label}` : label, input);
    return field;
  }));
}
