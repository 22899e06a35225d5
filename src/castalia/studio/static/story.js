// A story that branches: every text knows what it goes on from; it can be gone on with, tried again, edited, left.

import { ask, run, tried } from "./api.js";
import { control, values } from "./controls.js";
import { fill, h } from "./dom.js";

export function story(id, form) {
  const key = `castalia-story-${id}`;
  const saved = JSON.parse(localStorage.getItem(key) || "null");
  const texts = saved?.texts || [{ text: "", from: null, seed: null }];
  let now = saved?.now ?? 0;
  let seed = saved?.seed ?? 0;
  const options = form.sampling.map((told) => control(told, {}));
  const box = h("textarea", { "aria-label": "The story so far", onchange: edited });
  const branches = h("ol", { "aria-label": "Branches" });
  const state = h("p", { class: "soft", "aria-live": "polite" });
  const on = h("button", { type: "button", class: "main", onclick: () => write(now) }, "Continue");
  const retry = h("button", { type: "button", onclick: () => texts[now].from !== null && write(texts[now].from) }, "Try again");
  const undo = h("button", { type: "button", onclick: () => { if (texts[now].from !== null) show(texts[now].from); } }, "Undo");

  function keep() {
    localStorage.setItem(key, JSON.stringify({ texts, now, seed }));
  }

  function edited() {
    if (box.value === texts[now].text) return;
    texts.push({ text: box.value, from: texts[now].from ?? null, seed: null });
    show(texts.length - 1);
  }

  function show(k) {
    now = k;
    box.value = texts[k].text;
    fill(branches, ...texts.map((one, i) => h("li", {}, h("button", {
      type: "button", "aria-current": i === now ? "true" : null, onclick: () => show(i),
    }, one.text.slice(-40).trim() || "the beginning", one.seed === null ? "" : ` (seed ${one.seed})`))));
    keep();
  }

  const write = tried(async (from) => {
    edited();
    if (from === texts.length - 1) from = now;
    on.disabled = retry.disabled = true;
    const start = texts[from].text;
    seed += 1;
    let found = "";
    const hear = (job, progress) => {
      state.textContent = job.state === "done" ? "" : job.state;
      if (progress?.text !== undefined) {
        found = progress.text;
        box.value = start ? joined(start, found) : found;
      }
    };
    try {
      const given = start ? { prompt: start } : {};
      const job = await run({ do: "text", run: id, seed, given, options: await values(options) }, hear);
      const text = await ask(`/api/files/job-${job.id}-${job.files.indexOf("text.txt")}`);
      texts.push({ text: joined(start, text), from, seed });
      show(texts.length - 1);
    } finally {
      on.disabled = retry.disabled = false;
    }
  });

  const fresh = h("button", { type: "button", onclick: () => { texts.splice(0, texts.length, { text: "", from: null, seed: null }); show(0); } }, "A new story");
  show(Math.min(now, texts.length - 1));
  return h("div", { class: "split" }, h("div", { class: "panel controls" }, options.map((one) => one.element), h("h2", {}, "Branches"), branches, fresh),
    h("div", { class: "story" }, box, h("div", { class: "row" }, on, retry, undo), state));
}

// A system may give its prompt back before what it wrote.
function joined(start, found) {
  return found.startsWith(start) ? found : start + found;
}
