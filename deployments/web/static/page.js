// Moments in the reader's zone, and pages that follow what happens. Every page works without it.
"use strict";

function showMoments(within) {
  const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone === "UTC") return;
  for (const item of within.querySelectorAll("time[data-moment]")) {
    const utc = item.textContent;
    const moment = new Date(item.dateTime);
    const pad = (value) => String(value).padStart(2, "0");
    const day = `${moment.getFullYear()}-${pad(moment.getMonth() + 1)}-${pad(moment.getDate())}`;
    const beside = document.createElement("small");
    beside.textContent = ` (${utc})`;
    item.textContent = `${day} ${pad(moment.getHours())}:${pad(moment.getMinutes())}`;
    item.append(beside);
    item.title = zone;
    delete item.dataset.moment;
  }
}

// Whoever has begun to write, or opened a form, keeps the page as it is and is told instead.
function isBusy(main) {
  const focused = document.activeElement;
  if (focused && main.contains(focused) && focused.matches("input, button, summary")) return true;
  if (main.querySelector("details.fold[open]")) return true;
  return [...main.querySelectorAll("input:not([type=hidden])")].some((field) => field.value !== field.defaultValue);
}

async function refresh() {
  const main = document.querySelector("main");
  // Whoever reviews has a row before them, which no news takes away.
  if (main.querySelector("[data-review]")) return;
  if (isBusy(main)) {
    document.getElementById("fresh").hidden = false;
    return;
  }
  const answer = await fetch(location.href, { credentials: "same-origin", headers: { "x-following": "yes" } });
  if (!answer.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main");
  if (!fresh || isBusy(main)) return;
  showMoments(fresh);
  // What was told of an act stays until the reader goes elsewhere.
  const told = main.querySelectorAll(":scope > .note.done, :scope > .note.refused");
  main.replaceChildren(...told, ...fresh.childNodes);
  document.title = page.title;
  main.dispatchEvent(new CustomEvent("refreshed"));
}

function follow() {
  let wanted = null;
  let seen = null;
  const again = () => {
    clearTimeout(wanted);
    wanted = setTimeout(() => refresh().catch(() => {}), 150);
  };
  const source = new EventSource("/events");
  source.addEventListener("hello", (event) => {
    // After a lost connection: did we miss anything?
    if (seen !== null && seen !== event.data) again();
    seen = event.data;
  });
  source.addEventListener("changed", (event) => {
    seen = event.data;
    again();
  });
  addEventListener("pagehide", () => source.close());
}

// Reviewing by keyboard: a key presses the button that it stands on, unless somebody writes.
function reviewByKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const field = event.target instanceof Element && event.target.closest("input, select, textarea");
  if (field && !(field.inputMode === "decimal" && /^[a-z]$/i.test(event.key))) return;
  const button = document.querySelector(`main [data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!button || button.disabled) return;
  event.preventDefault();
  button.form.requestSubmit(button);
  // One row, one answer: the next press is for the next row.
  for (const other of document.querySelectorAll("main [data-key]")) delete other.dataset.key;
}

showMoments(document);
addEventListener("keydown", reviewByKey);
if (document.body.dataset.listen === "yes") follow();
