// Before the page is drawn, so that it does not flash: the reader's choice, else the system's.
document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
