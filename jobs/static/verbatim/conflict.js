// The question when two people have changed one part: all three texts, and nothing is overwritten.

/** Ask what is to stand. Who closes the question keeps what is theirs and takes nothing. */
export function ask({ before, theirs, mine }) {
  const dialog = document.getElementById("conflict");
  const area = dialog.querySelector("textarea");
  const texts = { before, theirs, mine };
  for (const [name, text] of Object.entries(texts)) dialog.querySelector(`.${name}`).textContent = text;
  area.value = mine;
  dialog.showModal();
  return new Promise((resolve) => {
    const choose = (text) => {
      dialog.removeEventListener("cancel", keep);
      dialog.close();
      resolve(text);
    };
    const keep = (event) => { event.preventDefault(); choose(mine); };
    dialog.addEventListener("cancel", keep);
    for (const button of dialog.querySelectorAll("[data-take]")) {
      button.onclick = () => choose(button.dataset.take === "text" ? area.value : texts[button.dataset.take]);
    }
  });
}
