// A run to play with: tabs by what it can do.

import { ask, run, tried } from "./api.js";
import { control, gave, values } from "./controls.js";
import { fill, h, notice, unique } from "./dom.js";
import { dream } from "./dream.js";
import { explore, map } from "./explore.js";
import { last, stage } from "./results.js";
import { story } from "./story.js";

export async function play(id, wanted) {
  const [about, form] = await Promise.all([ask(`/api/runs/${id}`), ask(`/api/runs/${id}/form`)]);
  const tabs = [];
  if (form.generates && !form.dreams) tabs.push(["Sample", () => sample(id, form)]);
  if (form.medium === "text" && form.capabilities.includes("Streaming")) tabs.push(["Story", () => story(id, form)]);
  if (form.capabilities.includes("Latents")) {
    tabs.push(["Explore", () => explore(id, form)]);
    tabs.push(["Map", () => map(id)]);
  }
  if (form.dreams) tabs.push(["Dream", () => dream(id)], ["Sample", () => sample(id, form)]);
  if (form.edits.length) tabs.push(["Edit", () => edits(id, form)]);
  if (!tabs.length) return h("p", {}, "This system makes nothing that could be played with; it can be measured.");
  const place = h("div", { role: "tabpanel", tabIndex: 0, id: unique("panel") });
  const buttons = tabs.map(([name, make], k) => h("button", {
    type: "button", role: "tab", "aria-controls": place.id, id: unique("tab"), "data-tab": name,
    onclick: () => choose(k), onkeydown: (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) { choose((k + by + tabs.length) % tabs.length); buttons[(k + by + tabs.length) % tabs.length].focus(); }
    },
  }, name));
  const made = new Map();
  function choose(k) {
    buttons.forEach((button, i) => { button.setAttribute("aria-selected", String(i === k)); button.tabIndex = i === k ? 0 : -1; });
    if (!made.has(k)) made.set(k, tabs[k][1]());
    place.setAttribute("aria-labelledby", buttons[k].id);
    fill(place, made.get(k));
  }
  choose(Math.max(0, tabs.findIndex(([name]) => name.toLowerCase() === wanted)));
  return h("div", {}, h("h1", {}, about.name), h("p", { class: "soft" }, `${about.title}, on ${about.data}. `, h("a", { href: `#/run/${id}` }, "About this run")),
    h("div", { class: "tabs", role: "tablist", "aria-label": "Ways to play" }, buttons), place);
}

const SEED = { name: "seed", kind: "integer", default: 0, low: 0, help: "the same seed gives the same samples" };

function sample(id, form) {
  const most = form.medium === "image" ? 64 : 16;
  const few = { image: 16, points: 64, table: 50 }[form.medium] || 4;
  const context = { chosen: () => last.file };
  const count = control({ name: "n", kind: "integer", default: few, low: 1, high: form.medium === "points" || form.medium === "table" ? 256 : most, help: "how many" }, context);
  const seed = control(SEED, context);
  const prior = form.capabilities.includes("Inference") ? control({ name: "prior", kind: "choice", choices: ["trained", "fitted"], default: "trained", help: "fitted: where the training data lie" }, context) : null;
  const given = form.accepts.map((told) => control(told, context));
  const options = form.sampling.map((told) => control(told, context));
  const shown = stage(run);
  const go = h("button", { type: "submit", class: "main" }, "Sample");
  const another = h("button", { type: "button", onclick: () => { seed.set(Math.floor(Math.random() * 2 ** 31)); board.requestSubmit(); } }, "Another seed");
  const board = h("form", {
    class: "controls panel",
    onsubmit: tried(async (event) => {
      event.preventDefault();
      const wish = { do: "sample", run: id, n: await count.value() ?? few, seed: seed.value() ?? 0, given: await gave(given, form.accepts), options: await values(options) };
      if (prior) wish.prior = prior.value();
      await shown.start(wish);
    }),
  }, count.element, seed.element, prior?.element, given.map((one) => one.element), h("div", { class: "row" }, go, another),
  h("details", { open: options.length < 5 }, h("summary", {}, "How to sample"), h("div", { class: "controls" }, options.map((one) => one.element))),
  restore({ seed, count, given, options }));
  return h("div", { class: "split" }, board, shown.element);
}

// A file that was made here, or a recipe beside one: its settings come back.
function restore({ seed, count, given, options }) {
  const take = tried(async (file) => {
    const recipe = await ask("/api/recipes", file);
    const put = (controls, found) => controls.forEach((one) => { if (found && one.name in found) one.set(found[one.name]); });
    if (Number.isInteger(recipe.seed)) seed.set(recipe.seed);
    if (Number.isInteger(recipe.n)) count.set(recipe.n);
    put(given, recipe.given);
    put(options, recipe.options);
    notice(`The settings of ${String(recipe.run ?? "that file")} (${String(recipe.model ?? "unknown")}) are back.`);
  });
  const id = unique();
  const box = h("input", { type: "file", id, onchange: () => box.files[0] && take(box.files[0]) });
  const zone = h("div", {
    class: "drop control",
    ondragover: (event) => { event.preventDefault(); zone.classList.add("over"); },
    ondragleave: () => zone.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); zone.classList.remove("over"); if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]); },
  }, h("label", { htmlFor: id }, "Drop a file to bring its settings back"), box);
  return zone;
}

function edits(id, form) {
  const shown = stage(run);
  const place = h("div");
  const pick = h("select", { id: unique(), "aria-label": "Edit", onchange: () => show(pick.value) }, form.edits.map(({ name }) => h("option", { value: name }, name)));
  function show(name) {
    const told = form.edits.find((one) => one.name === name);
    let under = null;
    const context = {
      chosen: () => last.file,
      changed: (which, files) => { if (which === "of" && files[0]?.picture) under = `/api/files/${files[0].id}`; },
      picture: () => under || (last.file?.picture ? last.file.url : null),
    };
    const controls = told.controls.filter((one) => one.name !== "precision").map((one) => control(one, context));
    fill(place, h("form", {
      class: "controls",
      onsubmit: tried(async (event) => {
        event.preventDefault();
        await shown.start({ do: "edit", run: id, edit: name, options: await values(controls) });
      }),
    }, h("p", {}, told.help), controls.map((one) => one.element), h("button", { type: "submit", class: "main" }, "Do it")));
  }
  show(form.edits[0].name);
  return h("div", { class: "split" }, h("div", { class: "panel controls" }, pick, place), shown.element);
}
