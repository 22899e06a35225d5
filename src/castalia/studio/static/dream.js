// Inside a world model's dream: arrow keys act, the controller plays where nobody does.

import { ask, tried } from "./api.js";
import { h } from "./dom.js";

const EVERY = 66;

export function dream(id) {
  const session = Math.random().toString(36).slice(2, 14).padEnd(8, "0");
  const picture = h("img", { class: "big", alt: "What is seen in the dream" });
  const told = h("p", { class: "soft", "aria-live": "off" }, "Press Begin, then steer with the arrow keys.");
  const held = new Set();
  let going = false;
  let names = [];
  let sum = 0;
  let turn = 0;
  const stage = h("div", {
    tabIndex: 0, role: "application", "aria-label": "Dream: arrow keys act, Escape ends",
    onkeydown: (event) => {
      if (event.key === "Escape") going = false;
      if (!event.key.startsWith("Arrow")) return;
      event.preventDefault();
      held.add(event.key);
    },
    onkeyup: (event) => held.delete(event.key),
    onblur: () => held.clear(),
  }, picture);
  const alone = h("input", { type: "checkbox", id: `alone-${session}` });

  const begin = tried(async () => {
    going = false;
    turn += 1;
    const seed = Math.floor(Math.random() * 1e6);
    show(await ask(`/api/runs/${id}/dream`, { session, begin: true, seed }));
    sum = 0;
    going = true;
    stage.focus();
    loop();
  });

  function show(moment) {
    picture.src = `data:image/png;base64,${moment.frame}`;
    names = moment.actions;
    sum += moment.reward;
    told.textContent = `step ${moment.step}, reward ${sum.toFixed(2)}${moment.over ? ", the dream is over" : ""}`;
    if (moment.over) going = false;
  }

  // the first action is left and right; a second and third are forward and back
  function action() {
    const side = (held.has("ArrowRight") ? 1 : 0) - (held.has("ArrowLeft") ? 1 : 0);
    const up = held.has("ArrowUp") ? 1 : -1;
    const down = held.has("ArrowDown") ? 1 : -1;
    return names.map((_, k) => [side, up, down][k] ?? 0);
  }

  const loop = tried(async () => {
    const mine = turn;
    while (going && mine === turn && stage.isConnected) {
      const began = performance.now();
      show(await ask(`/api/runs/${id}/dream`, { session, action: alone.checked ? null : action() }));
      await new Promise((resolve) => { setTimeout(resolve, Math.max(0, EVERY - (performance.now() - began))); });
    }
  });

  return h("div", { class: "shown" }, stage, h("div", { class: "row" }, h("button", { type: "button", class: "main", onclick: begin }, "Begin"), alone, h("label", { htmlFor: alone.id }, "let its controller play")), told);
}
