// Where words stand in a text, and when they were spoken.

const LOOK_AHEAD = 80; // characters: a word that is not found there is passed over

/** Give each word its place in the text: `{from, to, start, end, confidence}`, in order. */
export function placed(words, text) {
  const found = [];
  let at = 0;
  for (const word of words) {
    const from = text.indexOf(word.text, at);
    if (from < 0 || from - at > LOOK_AHEAD) continue;
    at = from + word.text.length;
    found.push({ from, to: at, start: word.start, end: word.end, confidence: word.confidence });
  }
  return found;
}

/** The last item whose `key` is not beyond a value, by halving; undefined where there is none. */
export function lastUpTo(items, key, value) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (items[middle][key] <= value) low = middle + 1; else high = middle;
  }
  return items[low - 1];
}

/** A range over characters of an element that holds text only. */
export function rangeIn(element, from, to) {
  const range = new Range();
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let passed = 0;
  let started = false;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const length = node.data.length;
    if (!started && from <= passed + length) {
      range.setStart(node, from - passed);
      started = true;
    }
    if (started && to <= passed + length) {
      range.setEnd(node, to - passed);
      return range;
    }
    passed += length;
  }
  return null;
}

/** How many characters of an element's text stand before a point in it. */
export function offsetIn(element, node, offset) {
  const range = new Range();
  range.setStart(element, 0);
  range.setEnd(node, offset);
  return range.toString().length;
}
