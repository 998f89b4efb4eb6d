"use strict";
// The server renders; this only puts the newest rendering in place of the last one. Without it, the page is as true as when it was loaded.
const overview = document.getElementById("overview");
new EventSource("live" + location.search).onmessage = (message) => {
  // Whoever goes through the links by keyboard stays where he is.
  const focused = overview.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  overview.innerHTML = JSON.parse(message.data);
  if (focused) { [...overview.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true }); }
};
