// What is typed and not saved yet, kept by the browser for this window and this person: neither a
// reload nor a crash nor having to sign in anew loses it.

const PREFIX = "unsaved:";

export class Drafts {
  constructor(userId, jobId) {
    this.prefix = `${PREFIX}${userId}:${jobId}:`;
  }

  /**
   * All there are, as `{index, text, before, sent}`: what was typed in a part, over which text, and
   * what of it was on its way to the server.
   */
  all() {
    const names = Object.keys(sessionStorage).filter((name) => name.startsWith(this.prefix));
    return names
      .map((name) => ({ index: Number(name.slice(this.prefix.length)), ...JSON.parse(sessionStorage.getItem(name)) }))
      .sort((one, other) => one.index - other.index);
  }

  keep(index, draft) {
    try {
      sessionStorage.setItem(this.prefix + index, JSON.stringify(draft));
    } catch { /* full, or not allowed: leaving the page still asks */ }
  }

  drop(index) {
    sessionStorage.removeItem(this.prefix + index);
  }
}

/** Who has signed out leaves nothing behind. */
export function dropAll() {
  for (const name of Object.keys(sessionStorage)) if (name.startsWith(PREFIX)) sessionStorage.removeItem(name);
}
