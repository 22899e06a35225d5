// The rooms around playing: runs, one run, training, boards, comparison, queue.

import { ask, events, known, run, tried, upload } from "./api.js";
import { control, values } from "./controls.js";
import { ago, fill, h, notice, short, svg, time, unique } from "./dom.js";
import { stage } from "./results.js";
import { viewer } from "./viewers.js";

export async function runs() {
  const found = await ask("/api/runs");
  if (!found.length) return h("div", {}, h("h1", {}, "Runs"), h("p", {}, "There are no runs here yet. ", h("a", { href: "#/train" }, "Train a first one"), "."));
  const filter = h("input", { type: "text", id: unique(), placeholder: "name, system or data", oninput: () => show() });
  const list = h("ul", { class: "cards" });
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    fill(list, ...found.filter((one) => words.every((word) => `${one.name} ${one.model} ${one.data}`.toLowerCase().includes(word))).map(card));
  };
  show();
  return h("div", {}, h("h1", {}, "Runs"), h("div", { class: "control" }, h("label", { htmlFor: filter.id }, "Find"), filter), h("br"), list);
}

function card(one) {
  if (one.problem) return h("li", { class: "card" }, h("strong", {}, one.name), h("p", { class: "bad" }, one.problem));
  const picture = h("img", { src: `/api/runs/${one.id}/picture`, alt: "", loading: "lazy", onerror: () => picture.replaceWith(h("div", { class: "empty" }, "no picture yet")) });
  const best = Object.entries(one.best || {}).map(([name, value]) => `${name.replaceAll("_", " ")} ${short(value)}`);
  return h("li", { class: "card" }, h("a", { class: "cover", href: `#/play/${one.id}` }, picture, h("strong", {}, one.name)),
    h("div", { class: "soft" }, `${one.model} on ${one.data.split("/").pop()}, ${one.steps.toLocaleString()} steps`, best.length ? h("div", {}, best) : null),
    h("a", { href: `#/run/${one.id}` }, "about"));
}

export async function about(id, signal) {
  const place = h("div");
  const show = async () => {
    const one = await ask(`/api/runs/${id}`);
    const metrics = Object.entries(one.metrics);
    const shown = stage(run);
    const measure = h("button", { type: "button", onclick: () => shown.start({ do: "evaluate", run: id }).then((job) => job && show()) }, "Measure");
    const go = one.training
      ? h("button", { type: "button", onclick: tried(() => ask("/api/trainings/stop", {})) }, "Stop the training")
      : h("button", { type: "button", onclick: tried(async () => { await ask(`/api/runs/${id}/resume`, {}); show(); }) }, "Go on training");
    const grid = h("img", { class: "big", alt: "Samples drawn while training", src: one.pictures.length ? `/api/runs/${id}/picture` : "" , hidden: !one.pictures.length });
    const steps = one.pictures.length > 1 ? h("input", { type: "range", min: 0, max: one.pictures.length - 1, value: one.pictures.length - 1, "aria-label": "Over the course of training", oninput: () => { grid.src = `/api/runs/${id}/picture?name=${encodeURIComponent(one.pictures[steps.value])}`; } }) : null;
    fill(place, h("h1", {}, one.name),
      h("div", { class: "row" }, h("a", { class: "button", href: `#/play/${id}` }, "Play"), go, measure),
      h("p", { class: "soft", id: "line" }, one.line),
      one.verdict ? h("p", {}, h("strong", {}, one.verdict)) : null,
      (one.training ? [] : one.warnings).map((words) => h("p", { class: "bad" }, words)),
      h("div", { class: "split" },
        h("div", { class: "shown" }, grid, steps),
        h("div", {},
          h("dl", {}, facts(one).map(([name, value]) => [h("dt", { class: "soft" }, name), h("dd", {}, value)])),
          one.said.map((words) => h("p", { class: "soft" }, words)),
          Object.entries(one.curves).map(([name, points]) => curve(name, points)),
          metrics.length ? h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Measurements" }, h("table", {}, h("thead", {}, h("tr", {}, ["measured", "value", "unit", "kind"].map((word) => h("th", { scope: "col" }, word)))), h("tbody", {}, metrics.map(([name, m]) => h("tr", {}, h("td", {}, name.replaceAll("_", " ")), h("td", {}, short(m.value)), h("td", {}, m.unit), h("td", {}, m.kind)))))) : null,
          h("h2", {}, "On the command line"), h("pre", { tabIndex: 0 }, one.next.join("\n")), shown.element)));
  };
  await show();
  let last = 0;
  events.addEventListener("training", tried(async (event) => {
    if (event.detail.run !== id || signal.aborted) return;
    const line = document.getElementById("line");
    if (line) line.textContent = event.detail.line;
    const now = performance.now();
    if (!event.detail.running || now - last > 8000) {
      last = now;
      await show();
    }
  }), { signal });
  return place;
}

const facts = (one) => [
  ["system", `${one.title} (${one.model})`], ["data", one.data],
  ["trained", `${one.steps.toLocaleString()}${one.planned && one.planned !== one.steps ? ` of ${one.planned.toLocaleString()}` : ""} steps of ${one.batch_size}, ${time(one.seconds)}`],
  ["seed", String(one.seed)], ["begun", one.begun],
];

function curve(name, points) {
  const good = points.filter(([, y]) => Number.isFinite(y));
  if (good.length < 2) return null;
  const xs = good.map(([x]) => x);
  const ys = good.map(([, y]) => y).sort((a, b) => a - b);
  const [low, high] = [ys[0], ys[ys.length - 1]];
  const at = ([x, y]) => `${(40 + (555 * (x - xs[0])) / (xs[xs.length - 1] - xs[0] || 1)).toFixed(1)},${(165 - (150 * (Math.min(y, high) - low)) / (high - low || 1)).toFixed(1)}`;
  return h("figure", {}, svg("svg", { class: "curve", viewBox: "0 0 600 180", role: "img", "aria-label": `${name}: from ${short(good[0][1])} to ${short(good[good.length - 1][1])}` },
    svg("path", { d: `M${good.map(at).join("L")}` }), Object.assign(svg("text", { x: 0, y: 18 }), { textContent: short(high) }), Object.assign(svg("text", { x: 0, y: 168 }), { textContent: short(low) })), h("figcaption", { class: "soft" }, name));
}

export async function train() {
  const [systems, sets] = await Promise.all([ask("/api/systems"), ask("/api/data")]);
  const recipes = systems.flatMap((one) => Object.entries(one.recipes).map(([name, words]) => ({ name, words, model: one.name })));
  const model = h("select", { id: unique(), onchange: offer }, systems.map((one) => h("option", { value: one.name }, `${one.name}: ${one.title}`)));
  const recipe = h("select", { id: unique(), onchange: tell });
  const words = h("small", { class: "soft" });
  const data = h("input", { type: "text", id: unique(), list: "sets", placeholder: "a named set, or a folder's whole path" });
  data.setAttribute("list", "sets");
  const own = h("input", { type: "file", id: unique(), onchange: tried(async () => { if (own.files[0]) { data.value = await upload(own.files[0]); notice(`${own.files[0].name} is uploaded.`); } }) });
  const more = [
    { name: "name", kind: "text", help: "of the new folder: letters, digits, - and _" },
    { name: "minutes", kind: "number", low: 0.1, help: "how long; without it, as long as the recipe says" },
    { name: "seed", kind: "integer", default: 0, low: 0 },
    { name: "settings", kind: "texts", help: "anything in the recipe, for example training.lr=0.001" },
  ].map((told) => control(told, {}));
  function offer() {
    const mine = recipes.filter((one) => one.model === model.value);
    fill(recipe, h("option", { value: "" }, "what fits the data and the time"), ...mine.map((one) => h("option", { value: one.name }, one.name)));
    const system = systems.find((one) => one.name === model.value);
    more[0].set(model.value);
    recipe.value = system.demo;
    tell();
  }
  function tell() {
    const one = recipes.find(({ name }) => name === recipe.value);
    words.textContent = one ? one.words : "needs data below";
  }
  offer();
  const go = tried(async (event) => {
    event.preventDefault();
    const wish = { ...(await values(more)) };
    if (recipe.value) wish.recipe = recipe.value;
    else wish.model = model.value;
    if (data.value) wish.data = data.value;
    const { run: id } = await ask("/api/trainings", wish);
    notice("Training begins.");
    for (let k = 0; k < 240; k += 1) { // its folder is there once the data are read
      await new Promise((resolve) => { setTimeout(resolve, 500); });
      const { ended, line } = await ask("/api/trainings");
      if ((await ask("/api/runs")).some((one) => one.id === id && !one.problem)) {
        location.hash = `#/run/${id}`;
        return;
      }
      if (ended) throw new Error(line || "The training ended before it began.");
    }
  });
  const labelled = (text, box) => h("div", { class: "control" }, h("label", { htmlFor: box.id }, text), box);
  return h("div", {}, h("h1", {}, "Train"), h("form", { class: "controls panel", onsubmit: go }, labelled("System", model), labelled("Recipe", recipe), words, labelled("Data, where not the recipe's", data), labelled("or a file of yours (.zip of pictures, .csv, .txt ...)", own),
    h("datalist", { id: "sets" }, sets.map((one) => h("option", { value: one.name }, one.what))), more.map((one) => one.element), h("button", { type: "submit", class: "main" }, "Train")));
}

export async function boards(chosen) {
  const found = await ask("/api/boards");
  const name = h("input", { type: "text", id: unique(), maxLength: 80, required: true });
  const make = tried(async (event) => {
    event.preventDefault();
    const { id } = await ask("/api/boards", { name: name.value });
    location.hash = `#/boards/${id}`;
  });
  const list = h("ul", {}, found.map((one) => h("li", {}, h("a", { href: `#/boards/${one.id}`, "aria-current": one.id === chosen ? "true" : null }, one.name), ` (${one.count})`)));
  const fresh = h("form", { class: "row", onsubmit: make }, h("label", { htmlFor: name.id }, "New board"), name, h("button", { type: "submit" }, "Make"));
  const place = h("div", { class: "shown" });
  if (chosen) {
    const items = await ask(`/api/boards/${chosen}`);
    place.append(h("div", { class: "row" }, h("a", { class: "button", href: `/api/boards/${chosen}/zip`, download: "board.zip" }, "Save all as ZIP")),
      h("div", { class: "cards" }, items.map((one) => h("div", { class: "card" }, viewer(`/api/boards/${chosen}/items/${one.id}`, one.file.replace(/^[0-9a-f]+-(job-[0-9]+-[0-9]+|upload-[0-9a-f]+)-/, "")),
        one.note ? h("p", {}, one.note) : null, h("details", {}, h("summary", {}, "How it was made"), h("pre", { tabIndex: 0 }, JSON.stringify(one.recipe, null, 1))),
        h("button", { type: "button", onclick: tried(async () => { await ask(`/api/boards/${chosen}/items/${one.id}/drop`, {}); dispatchEvent(new HashChangeEvent("hashchange")); }) }, "Take off")))));
    if (!items.length) place.append(h("p", { class: "soft" }, "Nothing is kept here yet."));
  }
  return h("div", {}, h("h1", {}, "Boards"), h("div", { class: "split" }, h("div", { class: "panel" }, list, fresh), place));
}

export async function compare() {
  const found = (await ask("/api/runs")).filter((one) => !one.problem);
  const boxes = found.map((one) => h("input", { type: "checkbox", id: unique(), value: one.id }));
  const drawn = control({ name: "drawn", kind: "integer", default: 500, low: 2, high: 5000, help: "samples of each" }, {});
  const shown = stage(run);
  const go = tried(async (event) => {
    event.preventDefault();
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    if (chosen.length < 2) throw new Error("Choose two runs or more.");
    await shown.start({ do: "compare", runs: chosen, drawn: drawn.value() ?? 500 });
  });
  return h("div", {}, h("h1", {}, "Compare"), h("form", { class: "panel controls", onsubmit: go },
    h("fieldset", {}, h("legend", {}, "Runs, on the data of the first"), found.map((one, k) => h("div", { class: "row" }, boxes[k], h("label", { htmlFor: boxes[k].id }, `${one.name} (${one.model} on ${one.data.split("/").pop()})`)))),
    drawn.element, h("button", { type: "submit", class: "main" }, "Compare")), shown.element);
}

export async function queue(signal) {
  for (const job of await ask("/api/jobs")) known.set(job.id, job);
  const body = h("tbody");
  const show = () => {
    const jobs = [...known.values()].sort((a, b) => b.id - a.id).slice(0, 100);
    fill(body, ...jobs.map((job) => h("tr", {}, h("td", {}, String(job.id)), h("td", {}, job.wish.edit || job.wish.do), h("td", { class: job.state === "failed" ? "bad" : job.state === "done" ? "good" : "" }, job.state), h("td", {}, ago(job.created)), h("td", {}, job.message),
      h("td", {}, ["queued", "running"].includes(job.state) ? h("button", { type: "button", onclick: tried(() => ask(`/api/jobs/${job.id}/cancel`, {})), "aria-label": `Cancel job ${job.id}` }, "Cancel") : job.state === "failed" || job.state === "cancelled" ? h("button", { type: "button", onclick: tried(() => ask("/api/jobs", job.wish)), "aria-label": `Do job ${job.id} again` }, "Again") : h("a", { href: `#/job/${job.id}` }, "look")))));
  };
  events.addEventListener("job", show, { signal });
  show();
  return h("div", {}, h("h1", {}, "Queue"), h("div", { class: "row" }, h("button", { type: "button", onclick: tried(() => ask("/api/jobs/cancel", {})) }, "Cancel all")),
    h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Jobs" }, h("table", {}, h("thead", {}, h("tr", {}, ["number", "what", "state", "when", "message", "do"].map((word) => h("th", { scope: "col" }, word)))), body)));
}
