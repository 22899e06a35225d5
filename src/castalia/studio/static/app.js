// The page: which room is open, by the address behind the #; the theme; how many jobs wait.

import { ask, events, known, listen } from "./api.js";
import { h, notice } from "./dom.js";
import { play } from "./play.js";
import { results } from "./results.js";
import { about, boards, compare, queue, runs, train } from "./rooms.js";

const main = document.getElementById("main");
let leaving = new AbortController();

const rooms = {
  runs: () => runs(),
  run: (id, signal) => about(id, signal),
  play: (id, _, tab) => play(id, tab),
  train: () => train(),
  boards: (id) => boards(id),
  compare: () => compare(),
  queue: (_, signal) => queue(signal),
  job: async (id) => h("div", {}, h("h1", {}, `Job ${Number(id)}`), results(await ask(`/api/jobs/${Number(id)}`))),
};

async function open() {
  const [, name = "runs", id, tab] = location.hash.split("/");
  const room = Object.hasOwn(rooms, name) ? name : "runs";
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.getAttribute("href") === `#/${room}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.replaceChildren(h("p", { class: "soft" }, "loading ..."));
  try {
    const made = await rooms[room](id && encodeURIComponent(id), signal, tab);
    if (signal.aborted) return;
    main.replaceChildren(made);
    document.title = `${main.querySelector("h1")?.textContent || "Castalia"} - Castalia Studio`;
  } catch (error) {
    if (!signal.aborted) main.replaceChildren(h("p", { class: "bad", role: "alert" }, error.message));
  }
}

function theme(name) {
  document.documentElement.dataset.theme = name;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
theme(localStorage.theme || (dark.matches ? "dark" : "light"));
dark.addEventListener("change", () => { if (!localStorage.theme) theme(dark.matches ? "dark" : "light"); });
document.getElementById("theme").addEventListener("click", () => {
  localStorage.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  theme(localStorage.theme);
});

events.addEventListener("job", () => {
  const waiting = [...known.values()].filter((job) => ["queued", "running"].includes(job.state)).length;
  const badge = document.getElementById("waiting");
  badge.hidden = !waiting;
  badge.textContent = String(waiting);
});
addEventListener("hashchange", open);
addEventListener("unhandledrejection", (event) => notice(String(event.reason?.message || event.reason), true));
listen();
open();
