// Times and durations as the reader has them.

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Show every `<time datetime>` below a node in the reader's zone and manner. */
export function localiseTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const time = new Date(element.dateTime);
    if (!Number.isNaN(time.valueOf())) {
      element.textContent = moment.format(time);
      element.title = element.dateTime;
    }
  }
}

/** Seconds as a player shows them: 1:02:03, 2:03. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = `${minutes.toString().padStart(hours ? 2 : 1, "0")}:${rest.toString().padStart(2, "0")}`;
  return hours ? `${hours}:${tail}` : tail;
}
