// What a job made, with what one does with it: keep it, take its seed or its settings back, use it elsewhere.

import { ask, tried } from "./api.js";
import { h, notice } from "./dom.js";
import { viewer } from "./viewers.js";

export const last = { file: null }; // the file that was shown last, for "Use what is shown"

export function results(job) {
  const files = job.files.map((name, k) => ({ name, id: `job-${job.id}-${k}`, url: `/api/files/job-${job.id}-${k}` }));
  const shown = files.filter(({ name }) => !name.endsWith(".json"));
  const single = shown.filter(({ name }) => name !== "grid.png" && name !== "page.html");
  const whole = shown.filter(({ name }) => ["grid.png", "page.html", "film.gif"].includes(name));
  const first = single.find(({ name }) => /\.(png|wav|mid|glb|txt|csv)$/.test(name)) || whole[0];
  if (first) last.file = { id: first.id, name: first.name, picture: /\.(png|gif|jpg|webp)$/.test(first.name), url: first.url };
  const pick = single.length > 1 ? picks(single) : null;
  const seen = whole.length ? whole : single.slice(0, 8);
  const played = whole.length ? single.filter(({ name }) => /\.(wav|mid|glb|csv|txt|smi)$/.test(name)).slice(0, 8) : [];
  return h("div", { class: "shown", "data-job": job.id },
    h("div", { class: "row" }, h("span", { class: "soft" }, words(job)), keep(files.filter(({ name }) => !name.endsWith(".json")))),
    seen.map(({ url, name }) => viewer(url, name, words(job))), pick, played.map(({ url, name }) => viewer(url, name)));
}

// Single pictures, of which one can be chosen to go on with.
function picks(files) {
  const pictures = files.filter(({ name }) => /\.png$/.test(name));
  if (!pictures.length) return null;
  const buttons = pictures.slice(0, 64).map((file) => h("button", {
    type: "button", "aria-label": `Go on with ${file.name}`,
    onclick: () => { last.file = { id: file.id, name: file.name, picture: true, url: file.url }; notice(`${file.name} is what "Use what is shown" takes now.`); },
  }, h("img", { src: file.url, alt: "", loading: "lazy" })));
  return h("div", { class: "strip", role: "group", "aria-label": "Single samples" }, buttons);
}

export function words(job) {
  const { wish } = job;
  const parts = [wish.do === "edit" ? wish.edit : wish.do];
  if (wish.seed !== undefined) parts.push(`seed ${wish.seed}`);
  if (wish.options?.seed !== undefined) parts.push(`seed ${wish.options.seed}`);
  for (const [name, value] of Object.entries(wish.given || {})) parts.push(`${name} ${value?.file || value}`);
  return parts.join(", ");
}

export function keep(files) {
  const board = h("select", { "aria-label": "Board" });
  tried(async () => {
    const boards = await ask("/api/boards");
    board.replaceChildren(...boards.map(({ id, name }) => h("option", { value: id }, name)), h("option", { value: "" }, "a new board"));
  })();
  const put = tried(async () => {
    let id = board.value;
    if (!id) {
      id = (await ask("/api/boards", { name: "Kept" })).id;
      board.prepend(h("option", { value: id }, "Kept"));
      board.value = id;
    }
    await ask(`/api/boards/${id}/keep`, { files: files.slice(0, 64).map((file) => file.id) });
    notice("Kept.");
  });
  return h("span", { class: "row" }, h("button", { type: "button", onclick: put }, "Keep on"), h("span", {}, board));
}

// A place for a job's progress, previews and results; `start` runs it.
export function stage(run) {
  const bar = h("progress", { max: 1, hidden: true, "aria-label": "Progress" });
  const state = h("p", { class: "soft", "aria-live": "polite" });
  const stop = h("button", { type: "button", hidden: true }, "Cancel");
  const preview = h("img", { class: "big", hidden: true, alt: "Unfinished samples" });
  const place = h("div", { class: "shown" });
  let number = null;
  stop.addEventListener("click", tried(() => ask(`/api/jobs/${number}/cancel`, {})));
  const element = h("div", {}, h("div", { class: "row" }, stop, state), bar, preview, place);
  const told = (job, progress) => {
    number = job.id;
    stop.hidden = !["queued", "running"].includes(job.state);
    state.textContent = job.state === "done" ? "" : job.state;
    if (!progress) return;
    if (progress.words) state.textContent = progress.words;
    if (progress.of) {
      bar.hidden = false;
      bar.max = progress.of;
      bar.value = progress.done;
    }
    if (progress.preview) {
      preview.hidden = false;
      preview.src = `data:image/jpeg;base64,${progress.preview}`;
    }
  };
  const start = tried(async (wish, hear) => {
    bar.hidden = preview.hidden = true;
    try {
      const job = await run(wish, (one, progress) => { told(one, progress); hear?.(one, progress); });
      place.replaceChildren(results(job));
      return job;
    } catch (error) {
      state.textContent = error.message;
      state.className = error.message === "Cancelled." ? "soft" : "bad";
      return undefined;
    } finally {
      bar.hidden = preview.hidden = stop.hidden = true;
    }
  });
  return { element, start };
}
