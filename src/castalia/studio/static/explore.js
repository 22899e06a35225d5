// Latents by hand: sliders that redraw while they are dragged, places that are kept, films between them, maps to walk in.

import { ask, run, tried } from "./api.js";
import { control, gave } from "./controls.js";
import { fill, h, notice } from "./dom.js";
import { stage } from "./results.js";

const CELLS = 12;

// Draws the newest place that was asked for; those that were overtaken are never asked for.
function drawing(id, picture) {
  let next = null;
  let busy = false;
  let url = null;
  return async function draw(where, given) {
    next = { where, given };
    if (busy) return;
    busy = true;
    try {
      while (next) {
        const wish = next;
        next = null;
        const began = performance.now();
        const blob = await ask(`/api/runs/${id}/decode`, wish);
        if (url) URL.revokeObjectURL(url);
        url = URL.createObjectURL(blob);
        picture.src = url;
        picture.dataset.milliseconds = String(performance.now() - began);
      }
    } catch (error) {
      notice(error.message, true);
    } finally {
      busy = false;
    }
  };
}

export function explore(id, form) {
  const picture = h("img", { class: "big shownplace", alt: "The picture of this place" });
  const draw = drawing(id, picture);
  const seed = control({ name: "seed", kind: "integer", default: 0, low: 0, help: "where it begins" }, {});
  const given = form.accepts.filter((told) => told.kind !== "example").map((told) => control(told, {}));
  const sliders = h("div", { class: "controls" }, h("p", { class: "soft" }, "looking for directions ..."));
  const pins = [];
  const strip = h("div", { class: "strip", role: "group", "aria-label": "Kept places" });
  const shown = stage(run);
  let moves = {};
  const where = () => ({ seed: seed.value() ?? 0, moves: Object.fromEntries(Object.entries(moves).filter(([, v]) => v !== 0)) });
  const redraw = tried(async () => draw(where(), await gave(given, form.accepts)));
  for (const one of [seed, ...given]) one.element.addEventListener("input", redraw);
  seed.element.addEventListener("change", redraw);
  tried(async () => {
    const axes = await ask(`/api/runs/${id}/axes`);
    fill(sliders, ...axes.map((name) => slider(name)), h("button", { type: "button", onclick: reset }, "All to the middle"));
    await redraw();
  })();

  function slider(name) {
    const label = `${name}`;
    const box = h("input", { type: "range", min: -3, max: 3, step: 0.05, value: 0, "aria-label": label, "data-axis": name, oninput: () => { moves[name] = Number(box.value); value.textContent = box.value; redraw(); } });
    const value = h("output", {}, "0");
    return h("div", { class: "row" }, h("span", { class: "control" }, label), box, value);
  }

  function reset() {
    moves = {};
    sliders.querySelectorAll("input").forEach((box) => { box.value = 0; box.nextSibling.textContent = "0"; });
    redraw();
  }

  const pin = tried(async () => {
    const place = where();
    const shot = await ask(`/api/runs/${id}/decode`, { where: place, given: await gave(given, form.accepts) });
    pins.push(place);
    strip.append(h("img", { src: URL.createObjectURL(shot), alt: `Place ${pins.length}, seed ${place.seed}` }));
    film.disabled = pins.length < 2;
  });
  const film = h("button", { type: "button", disabled: true, onclick: tried(async () => {
    await shown.start({ do: "film", run: id, places: pins, frames: Math.min(240, 16 * pins.length), given: await gave(given, form.accepts) });
  }) }, "Film through the kept places");
  const other = h("button", { type: "button", onclick: () => { seed.set(Math.floor(Math.random() * 1e6)); redraw(); } }, "Somewhere else");
  return h("div", { class: "split" },
    h("div", { class: "panel controls" }, seed.element, given.map((one) => one.element), sliders),
    h("div", { class: "shown" }, picture, h("div", { class: "row" }, other, h("button", { type: "button", class: "main", onclick: pin }, "Keep this place"), film), strip, shown.element));
}

export function map(id) {
  const spot = h("span", { class: "spot", hidden: true });
  const whole = h("img", { alt: "Map of the latent space" });
  const picture = h("img", { class: "big shownplace", alt: "The picture of this place" });
  const draw = drawing(id, picture);
  const told = h("p", { class: "soft", "aria-live": "polite" }, "Walk with the mouse, or with arrow keys.");
  let at = [0, 0];
  const REACH = 2;
  const board = h("button", {
    type: "button", class: "map", "aria-label": "Map: walk with the mouse or with arrow keys",
    onpointermove: (event) => {
      const box = board.getBoundingClientRect();
      go([((event.clientX - box.left) / box.width) * 2 * REACH - REACH, REACH - ((event.clientY - box.top) / box.height) * 2 * REACH]);
    },
    onkeydown: (event) => {
      const by = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (!by) return;
      event.preventDefault();
      go([at[0] + by[0], at[1] + by[1]]);
    },
  }, whole, spot);

  function go([x, y]) {
    at = [x, y].map((v) => Math.max(-REACH, Math.min(REACH, v)));
    spot.hidden = false;
    spot.style.left = `${((at[0] + REACH) / (2 * REACH)) * 100}%`;
    spot.style.top = `${((REACH - at[1]) / (2 * REACH)) * 100}%`;
    told.textContent = `${at[0].toFixed(2)}, ${at[1].toFixed(2)}`;
    draw({ seed: null, plane: at.map(stretched) }, {});
  }

  tried(async () => {
    const job = await run({ do: "edit", run: id, edit: "map", options: { cells: CELLS } });
    const k = job.files.indexOf("grid.png");
    whole.src = `/api/files/job-${job.id}-${k}`;
  })();
  return h("div", { class: "split" }, h("div", {}, picture, told), board);
}

// The map's cells lie where equal parts of the prior do: from a place on it to a coordinate of the plane.
function stretched(u) {
  const ends = normal(2);
  const cell = Math.min(1, Math.max(0, (((u + 2) / 4) * CELLS - 0.5) / (CELLS - 1))); // the middles of its cells
  const p = (1 - ends) + cell * (2 * ends - 1);
  let low = -4;
  let high = 4;
  for (let i = 0; i < 40; i += 1) {
    const middle = (low + high) / 2;
    if (normal(middle) < p) low = middle;
    else high = middle;
  }
  return low;
}

// The normal distribution function (Abramowitz and Stegun 7.1.26, to 1e-7).
function normal(x) {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * z);
  const erf = 1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * Math.exp(-z * z);
  return x < 0 ? (1 - erf) / 2 : (1 + erf) / 2;
}
