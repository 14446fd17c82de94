// What every page has: the theme's switch, and times in the reader's zone.
import { dropAll } from "./drafts.js";
import { localiseTimes } from "./times.js";

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const shown = root.dataset.theme || system;
  root.dataset.theme = shown === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});

// A reload asks for the page, and does not send again what led to it: that might make another token.
history.replaceState(history.state, "", location.href);

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

if (new URLSearchParams(location.search).has("signed-out")) dropAll(); // it has happened, and was one's own will
localiseTimes(document);
document.addEventListener("htmx:load", (event) => localiseTimes(event.detail.elt));
