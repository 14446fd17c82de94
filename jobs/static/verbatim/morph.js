// Make what is shown like what the server has drawn, in place: what stays keeps its focus, its
// choice and its place, and what the reader has opened is open. Elements with an id are found again
// by it, all others by their order.

export function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const wanted = new Set([...fresh.children].map(({ id }) => id));
  for (const child of [...old.children]) if (child.id && !wanted.has(child.id)) child.remove();
  const named = new Map([...old.children].filter(({ id }) => id).map((child) => [child.id, child]));
  let at = old.firstChild;
  const pass = () => { const passed = at; at = at.nextSibling; return passed; };
  for (const node of [...fresh.childNodes]) {
    const same = node.id ? named.get(node.id) : at && !at.id && at.nodeName === node.nodeName ? at : undefined;
    while (same && at && at !== same && !at.id) pass().remove(); // rather than move what has the focus
    if (same && same === at) pass();
    else old.insertBefore(same ?? document.importNode(node, true), at);
    if (same) morph(same, node);
  }
  while (at) pass().remove();
}
