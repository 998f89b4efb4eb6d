"use strict";
// The server renders; this only puts the newest rendering in place of the last one. Without it, the page is as true as when it was loaded.
const overview = document.getElementById("overview");
new EventSource("live" + location.search).onmessage = (message) => { overview.innerHTML = JSON.parse(message.data); };
