// How each kind of file is shown.

import { ask, tried } from "./api.js";
import { h } from "./dom.js";
import { showModel } from "./model3d.js";

const ROWS = 200;

export function viewer(url, name, words) {
  const suffix = name.slice(name.lastIndexOf(".")).toLowerCase();
  const make = kinds[suffix] || other;
  return h("figure", {}, make(url, name, words), h("figcaption", { class: "row soft" }, name, save(url, name)));
}

const save = (url, name) => h("a", { class: "button", href: `${url}${url.includes("?") ? "&" : "?"}save=true`, download: name, "aria-label": `Save ${name}` }, "Save");

const picture = (url, name, words) => h("img", { src: url, alt: words || name, class: "big" });

const kinds = {
  ".png": picture, ".gif": picture, ".webp": picture, ".jpg": picture,
  ".mp4": (url, name) => h("video", { src: url, controls: true, loop: true, class: "big", "aria-label": name }),
  ".wav": sound,
  ".glb": (url, name) => showModel(url, name),
  ".html": (url, name) => h("iframe", { src: url, class: "frame", sandbox: "allow-scripts", title: name }),
  ".csv": (url) => later(async () => table(await ask(url))),
  ".txt": (url) => later(async () => h("pre", { tabIndex: 0 }, await ask(url))),
  ".smi": (url) => later(async () => h("pre", { tabIndex: 0 }, await ask(url))),
};

function other(url, name) {
  return h("p", {}, `${name} is shown by other programs.`);
}

function later(call) {
  const place = h("div", {}, h("p", { class: "soft" }, "loading ..."));
  tried(async () => place.replaceChildren(await call()))();
  return place;
}

// A player with the spectrogram of what it plays, and a line that says where.
function sound(url, name) {
  const canvas = h("canvas", { width: 640, height: 160, class: "paint", role: "img", "aria-label": `Spectrogram of ${name}` });
  const player = h("audio", { src: url, controls: true, "aria-label": name });
  const drawn = document.createElement("canvas");
  const draw = () => {
    const c = canvas.getContext("2d");
    c.drawImage(drawn, 0, 0, canvas.width, canvas.height);
    const x = (player.currentTime / (player.duration || 1)) * canvas.width;
    c.fillStyle = "#fff";
    c.fillRect(x, 0, 1.5, canvas.height);
    if (!player.paused) requestAnimationFrame(draw);
  };
  player.addEventListener("play", draw);
  player.addEventListener("seeked", draw);
  tried(async () => {
    const bytes = await (await ask(url)).arrayBuffer();
    const context = new OfflineAudioContext(1, 1, 44100);
    const heard = await context.decodeAudioData(bytes);
    spectrogram(heard.getChannelData(0), drawn);
    draw();
  })();
  return h("div", {}, canvas, player);
}

// Magnitudes of short Fourier transforms (Hann windows of 512), in decibels below the loudest, lowest at the bottom.
function spectrogram(x, canvas) {
  const size = 512;
  const bins = size / 2;
  const columns = Math.max(1, Math.min(640, Math.floor(x.length / 64)));
  canvas.width = columns;
  canvas.height = bins;
  const c = canvas.getContext("2d");
  const image = c.createImageData(columns, bins);
  const levels = [];
  let loudest = 1e-9;
  const hop = Math.max(1, (x.length - size) / Math.max(1, columns - 1));
  for (let k = 0; k < columns; k += 1) {
    const re = new Float32Array(size);
    const im = new Float32Array(size);
    const start = Math.round(k * hop);
    for (let i = 0; i < size; i += 1) re[i] = (x[start + i] || 0) * (0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
    fft(re, im);
    const column = new Float32Array(bins);
    for (let i = 0; i < bins; i += 1) {
      column[i] = re[i] * re[i] + im[i] * im[i];
      loudest = Math.max(loudest, column[i]);
    }
    levels.push(column);
  }
  for (let k = 0; k < columns; k += 1) {
    for (let i = 0; i < bins; i += 1) {
      const level = Math.max(0, 1 + Math.log10(levels[k][i] / loudest + 1e-9) / 8);
      const at = 4 * ((bins - 1 - i) * columns + k);
      image.data[at] = 255 * Math.min(1, level * 1.6);
      image.data[at + 1] = 255 * level * level;
      image.data[at + 2] = 255 * (0.25 + 0.5 * level - 0.5 * level * level);
      image.data[at + 3] = 255;
    }
  }
  c.putImageData(image, 0, 0);
}

// In place, decimation in time; the length is a power of two.
export function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i += 1) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let length = 2; length <= n; length <<= 1) {
    const angle = (-2 * Math.PI) / length;
    for (let start = 0; start < n; start += length) {
      for (let k = 0; k < length / 2; k += 1) {
        const c = Math.cos(angle * k);
        const s = Math.sin(angle * k);
        const [a, b] = [start + k, start + k + length / 2];
        const [x, y] = [re[b] * c - im[b] * s, re[b] * s + im[b] * c];
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
}

// Comma separated values as a table that can be sorted by a click on a column's name.
export function table(text) {
  const rows = csv(text);
  const names = rows.shift() || [];
  const body = h("tbody");
  const fill = () => body.replaceChildren(...rows.slice(0, ROWS).map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))));
  const sort = (k) => {
    rows.sort((a, b) => (Number(a[k]) - Number(b[k])) || String(a[k]).localeCompare(String(b[k])));
    fill();
  };
  fill();
  const head = names.map((name, k) => h("th", { scope: "col" }, h("button", { type: "button", onclick: () => sort(k) }, name)));
  const rest = rows.length > ROWS ? h("p", { class: "soft" }, `${ROWS} of ${rows.length} rows; save the file for all.`) : null;
  return h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Table" }, h("table", {}, h("thead", {}, h("tr", {}, head)), body), rest);
}

export function csv(text) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') { cell += '"'; i += 1; } else quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === ",") { row.push(cell); cell = ""; } else if (c === "\n") { rows.push([...row, cell]); row = []; cell = ""; } else if (c !== "\r") cell += c;
  }
  if (cell || row.length) rows.push([...row, cell]);
  return rows;
}
