// A mask, painted over a picture: white where something is to change. Keys: arrows move, space paints, + and - size.

import { upload } from "./api.js";
import { h } from "./dom.js";

const SIZE = 256;

export function painter(id, picture) {
  const mask = document.createElement("canvas");
  let changed = false;
  let brush = 24;
  let at = [SIZE / 2, SIZE / 2];
  const under = new Image();
  const canvas = h("canvas", { id, class: "paint", width: SIZE, height: SIZE, tabIndex: 0, role: "img", "aria-label": "Mask: paint where something is to change; arrow keys move, space paints" });
  mask.width = mask.height = SIZE;
  const over = mask.getContext("2d");

  function clear() {
    over.fillStyle = "#000";
    over.fillRect(0, 0, SIZE, SIZE);
    changed = false;
    draw();
  }

  function draw() {
    const c = canvas.getContext("2d");
    c.globalCompositeOperation = "source-over";
    c.imageSmoothingEnabled = false;
    c.fillStyle = "#777";
    c.fillRect(0, 0, SIZE, SIZE);
    if (under.complete && under.naturalWidth) c.drawImage(under, 0, 0, SIZE, SIZE);
    c.globalCompositeOperation = "screen";
    c.globalAlpha = 0.7;
    c.drawImage(mask, 0, 0);
    c.globalAlpha = 1;
    c.globalCompositeOperation = "source-over";
    c.strokeStyle = "#e2007a";
    c.beginPath();
    c.arc(at[0], at[1], brush / 2, 0, 7);
    c.stroke();
  }

  function dab(from, to) {
    over.strokeStyle = over.fillStyle = "#fff";
    over.lineWidth = brush;
    over.lineCap = "round";
    over.beginPath();
    over.moveTo(...from);
    over.lineTo(to[0] + 0.01, to[1]);
    over.stroke();
    changed = true;
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIZE, ((event.clientY - box.top) / box.height) * SIZE];
  };
  let last = null;
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); last = at = place(event); dab(last, at); draw(); });
  canvas.addEventListener("pointermove", (event) => { at = place(event); if (last) { dab(last, at); last = at; } draw(); });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] }[event.key];
    if (by) at = [Math.min(SIZE, Math.max(0, at[0] + by[0])), Math.min(SIZE, Math.max(0, at[1] + by[1]))];
    else if (event.key === " ") dab(at, at);
    else if (event.key === "+") brush = Math.min(128, brush + 4);
    else if (event.key === "-") brush = Math.max(4, brush - 4);
    else return;
    event.preventDefault();
    draw();
  });
  under.addEventListener("load", draw);

  function look() {
    const src = picture();
    if (src && under.src !== new URL(src, location.href).href) under.src = src;
  }

  const size = h("input", { type: "range", min: 4, max: 128, value: brush, "aria-label": "Size of the brush", oninput: () => { brush = Number(size.value); draw(); } });
  const element = h("div", {}, canvas, h("div", { class: "row" }, size, h("button", { type: "button", onclick: clear }, "Clear"), h("button", { type: "button", onclick: look }, "Show the picture under it")));
  canvas.addEventListener("pointerenter", look);
  canvas.addEventListener("focus", look);
  clear();

  // the identifier of the uploaded mask; nothing where nothing was painted
  const value = async () => {
    if (!changed) return undefined;
    const blob = await new Promise((resolve) => { mask.toBlob(resolve, "image/png"); });
    return upload(new File([blob], "mask.png", { type: "image/png" }));
  };
  return { element, value };
}
