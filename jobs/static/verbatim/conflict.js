// The question when two people have changed one part: all three texts, and nothing is overwritten.

/** Ask what is to stand: gives the text, or null when the question is closed without an answer. */
export function ask({ before, theirs, mine }) {
  const dialog = document.getElementById("conflict");
  const area = dialog.querySelector("textarea");
  const texts = { before, theirs, mine };
  for (const [name, text] of Object.entries(texts)) dialog.querySelector(`.${name}`).textContent = text;
  area.value = mine;
  let chosen = null;
  for (const button of dialog.querySelectorAll("[data-take]")) {
    button.onclick = () => {
      chosen = button.dataset.take === "text" ? area.value : texts[button.dataset.take];
      dialog.close();
    };
  }
  dialog.showModal();
  // However it is closed: browsers do so by Escape whatever a page says.
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(chosen), { once: true });
  });
}
