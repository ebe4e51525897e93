// Filters while typing, refreshes live, copies queries. The pages work without scripts too.
"use strict";

const EVERY = 10_000; // milliseconds
let loading = null;

// Replaces the live parts of the page with those of a fresh one; keeps focus and scroll position.
async function load(address) {
  loading?.abort();
  const mine = (loading = new AbortController());
  let page;
  try {
    const late = AbortSignal.timeout(EVERY - 1000);
    const response = await fetch(address, { signal: AbortSignal.any([mine.signal, late]) });
    if (!response.ok) throw new Error(response.statusText);
    page = new DOMParser().parseFromString(await response.text(), "text/html");
  } catch {
    // Unless a later one has taken its place.
    if (loading === mine) live.textContent = "Refresh failed";
    return false;
  }
  live.textContent = "Refresh live";
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh) continue;
    const focused = part.contains(document.activeElement) && document.activeElement;
    const scrolled = part.querySelector(".scroll")?.scrollLeft ?? 0;
    const open = [...part.querySelectorAll("details")].map((details) => details.open);
    part.replaceWith(document.adoptNode(fresh));
    fresh.querySelectorAll("details").forEach((details, i) => (details.open = open[i] ?? details.open));
    fresh.querySelector(".scroll")?.scrollTo(scrolled, 0);
    if (focused) {
      const links = [...fresh.querySelectorAll("a, summary, .scroll")];
      const name = (element) => element.getAttribute("href") ?? element.tagName;
      links.find((link) => name(link) === name(focused))?.focus({ preventScroll: true });
    }
  }
  return true;
}

function addressOf(form) {
  const fields = [...new FormData(form)].filter(([, value]) => value !== "");
  return "?" + new URLSearchParams(fields);
}

const form = document.getElementById("filter");
if (form) {
  let waiting;
  const filter = async () => {
    const address = addressOf(form);
    if (await load(address)) history.replaceState(null, "", address);
  };
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 200);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    filter();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      form.elements.q.focus();
    }
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  // Browsers allow copying only over TLS or on localhost.
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    const label = button.firstChild;
    label.data = "Copied";
    setTimeout(() => (label.data = "Copy"), 1500);
  });
}

const live = document.getElementById("live");
live.hidden = false;
let timer;
live.addEventListener("click", () => {
  const on = live.getAttribute("aria-pressed") !== "true";
  live.setAttribute("aria-pressed", String(on));
  clearInterval(timer);
  if (!on) return;
  load(location.href);
  timer = setInterval(() => document.hidden || load(location.href), EVERY);
});
