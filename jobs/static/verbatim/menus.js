// Menus close when one is done with them: by Escape, by a press elsewhere, by opening another.

/** Those in `root`; each is a `<details class="menu">`. One with `data-stays` is worked with. */
export function closeMenus(root) {
  const menus = [...root.querySelectorAll(".menu")];
  const open = () => menus.find((menu) => menu.open);
  document.addEventListener("pointerdown", ({ target }) => {
    const menu = open();
    if (menu && !menu.contains(target) && !("stays" in menu.dataset)) menu.open = false;
  });
  root.addEventListener("keydown", ({ key, target }) => {
    const menu = open();
    if (key !== "Escape" || !menu) return;
    menu.open = false;
    if (menu.contains(target)) menu.querySelector("summary").focus();
  });
}
