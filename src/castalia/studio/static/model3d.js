// Shapes and moving people: a small viewer of GLB files on WebGL. Drag or arrow keys turn, wheel or + and - zoom.
// glTF 2.0: meshes of triangles with their nodes, colours and textures, and animations of nodes (linear or in steps).

import { ask, tried } from "./api.js";
import { h } from "./dom.js";

const SIZES = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4, MAT4: 16 };
const ARRAYS = { 5120: Int8Array, 5121: Uint8Array, 5122: Int16Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const VERTEX = `attribute vec3 position; attribute vec3 normal; attribute vec2 place; attribute vec4 tint;
uniform mat4 model, view; varying vec3 n; varying vec2 uv; varying vec4 c;
void main() { n = mat3(model) * normal; uv = place; c = tint; gl_Position = view * model * vec4(position, 1.0); }`;
const FRAGMENT = `precision mediump float; varying vec3 n; varying vec2 uv; varying vec4 c;
uniform sampler2D image; uniform bool textured; uniform vec4 colour;
void main() { vec3 l = normalize(vec3(0.4, 0.8, 0.6)); float d = length(n) > 0.0 ? 0.55 + 0.45 * abs(dot(normalize(n), l)) : 1.0;
vec4 t = textured ? texture2D(image, uv) : vec4(1.0); gl_FragColor = vec4(t.rgb * colour.rgb * c.rgb * d, 1.0); }`;

export function showModel(url, name) {
  const canvas = h("canvas", { class: "stage", width: 512, height: 512, tabIndex: 0, role: "img", "aria-label": `${name}: drag or press arrow keys to turn it, + and - to come nearer` });
  const play = h("button", { type: "button", hidden: true, "aria-pressed": "true" }, "Pause");
  tried(async () => stage(canvas, play, parse(await (await ask(url)).arrayBuffer())))();
  return h("div", {}, canvas, play);
}

function parse(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0, true) !== 0x46546c67) throw new Error("This is no GLB file.");
  let at = 12;
  let json = null;
  let bin = null;
  while (at + 8 <= buffer.byteLength) {
    const length = view.getUint32(at, true);
    const kind = view.getUint32(at + 4, true);
    if (kind === 0x4e4f534a) json = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, at + 8, length)));
    if (kind === 0x004e4942) bin = { buffer, at: at + 8 };
    at += 8 + length;
  }
  const read = (index) => {
    const told = json.accessors[index];
    const part = json.bufferViews[told.bufferView];
    const size = SIZES[told.type];
    const kind = ARRAYS[told.componentType];
    const start = bin.at + (part.byteOffset || 0) + (told.byteOffset || 0);
    const stride = part.byteStride || size * kind.BYTES_PER_ELEMENT;
    if (stride === size * kind.BYTES_PER_ELEMENT) return new kind(buffer.slice(start, start + told.count * stride));
    const out = new kind(told.count * size);
    for (let i = 0; i < told.count; i += 1) out.set(new kind(buffer.slice(start + i * stride, start + i * stride + size * kind.BYTES_PER_ELEMENT)), i * size);
    return out;
  };
  return { json, bin, read };
}

async function stage(canvas, play, file) {
  const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) throw new Error("This browser draws nothing in three dimensions (WebGL is off).");
  if (!gl.getExtension("OES_element_index_uint")) throw new Error("This browser's WebGL is too old for large meshes.");
  const program = link(gl);
  const nodes = (file.json.nodes || []).map((told) => ({ told, local: null, world: null, move: {} }));
  const things = [];
  for (const [k, node] of nodes.entries()) {
    if (node.told.mesh === undefined) continue;
    for (const part of file.json.meshes[node.told.mesh].primitives) things.push({ node: k, ...(await load(gl, file, part)) });
  }
  const clips = (file.json.animations || []).flatMap((clip) => clip.channels.map((channel) => {
    const sampler = clip.samplers[channel.sampler];
    return { node: channel.target.node, path: channel.target.path, times: file.read(sampler.input), values: file.read(sampler.output), steps: sampler.interpolation === "STEP" };
  }));
  const end = Math.max(0, ...clips.map((clip) => clip.times[clip.times.length - 1]));
  const roots = file.json.scenes?.[file.json.scene || 0]?.nodes || nodes.map((_, k) => k);
  const pose = (t) => {
    for (const clip of clips) nodes[clip.node].move[clip.path] = at(clip, t);
    const go = (k, above) => {
      nodes[k].world = times(above, local(nodes[k]));
      for (const child of nodes[k].told.children || []) go(child, nodes[k].world);
    };
    for (const root of roots) go(root, IDENTITY);
  };
  pose(0);
  const [middle, reach] = bounds(things, nodes);
  const eye = { yaw: 0.6, pitch: 0.25, near: 2.6 };
  let playing = end > 0;
  let began = performance.now();
  let clock = 0;
  const draw = () => {
    if (playing) clock = end ? ((performance.now() - began) / 1000) % end : 0;
    pose(clock);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(program.id);
    gl.uniformMatrix4fv(program.view, false, camera(eye, middle, reach));
    for (const thing of things) paint(gl, program, thing, nodes[thing.node].world);
    if (playing && canvas.isConnected) requestAnimationFrame(draw);
  };
  const again = () => { if (!playing) draw(); };
  play.hidden = !end;
  play.addEventListener("click", () => {
    playing = !playing;
    play.textContent = playing ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(playing));
    began = performance.now() - clock * 1000;
    if (playing) draw();
  });
  let last = null;
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); last = [event.clientX, event.clientY]; });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    eye.yaw -= (event.clientX - last[0]) / 120;
    eye.pitch = Math.max(-1.5, Math.min(1.5, eye.pitch + (event.clientY - last[1]) / 120));
    last = [event.clientX, event.clientY];
    again();
  });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); eye.near *= event.deltaY > 0 ? 1.1 : 0.9; again(); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const does = { ArrowLeft: () => { eye.yaw -= 0.15; }, ArrowRight: () => { eye.yaw += 0.15; }, ArrowUp: () => { eye.pitch = Math.min(1.5, eye.pitch + 0.1); }, ArrowDown: () => { eye.pitch = Math.max(-1.5, eye.pitch - 0.1); }, "+": () => { eye.near *= 0.9; }, "-": () => { eye.near *= 1.1; } }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
    again();
  });
  canvas.dataset.triangles = String(things.reduce((sum, thing) => sum + (thing.lines ? 0 : thing.count / 3), 0));
  requestAnimationFrame(draw);
}

function link(gl) {
  const id = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(id, shader);
  }
  gl.linkProgram(id);
  if (!gl.getProgramParameter(id, gl.LINK_STATUS)) throw new Error("The viewer cannot be set up on this graphics card.");
  const uniforms = Object.fromEntries(["model", "view", "image", "textured", "colour"].map((name) => [name, gl.getUniformLocation(id, name)]));
  return { id, ...uniforms, attributes: Object.fromEntries(["position", "normal", "place", "tint"].map((name) => [name, gl.getAttribLocation(id, name)])) };
}

async function load(gl, file, part) {
  const position = file.read(part.attributes.POSITION);
  const index = part.indices === undefined ? Uint32Array.from({ length: position.length / 3 }, (_, i) => i) : Uint32Array.from(file.read(part.indices));
  const lines = part.mode === 1;
  const normal = part.attributes.NORMAL === undefined ? (lines ? new Float32Array(position.length) : normals(position, index)) : file.read(part.attributes.NORMAL);
  const buffer = (data, target = gl.ARRAY_BUFFER) => {
    const id = gl.createBuffer();
    gl.bindBuffer(target, id);
    gl.bufferData(target, data, gl.STATIC_DRAW);
    return id;
  };
  const material = file.json.materials?.[part.material]?.pbrMetallicRoughness || {};
  const found = { positions: position, count: index.length, lines, buffers: { position: buffer(position), normal: buffer(normal) }, index: buffer(index, gl.ELEMENT_ARRAY_BUFFER), colour: material.baseColorFactor || [1, 1, 1, 1], texture: null, tint: null };
  if (part.attributes.TEXCOORD_0 !== undefined) found.buffers.place = buffer(file.read(part.attributes.TEXCOORD_0));
  if (part.attributes.COLOR_0 !== undefined) {
    const told = file.json.accessors[part.attributes.COLOR_0];
    const data = file.read(part.attributes.COLOR_0);
    const most = { 5121: 255, 5123: 65535 }[told.componentType] || 1;
    found.tint = { id: buffer(Float32Array.from(data, (v) => v / most)), size: SIZES[told.type] };
  }
  if (material.baseColorTexture) found.texture = await texture(gl, file, material.baseColorTexture.index);
  return found;
}

async function texture(gl, file, index) {
  const image = file.json.images[file.json.textures[index].source];
  const part = file.json.bufferViews[image.bufferView];
  const start = file.bin.at + (part.byteOffset || 0);
  const bitmap = await createImageBitmap(new Blob([file.bin.buffer.slice(start, start + part.byteLength)], { type: image.mimeType }));
  const id = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, id);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  const power = (n) => (n & (n - 1)) === 0;
  const whole = power(bitmap.width) && power(bitmap.height);
  for (const axis of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, axis, whole ? gl.REPEAT : gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  return id;
}

function paint(gl, program, thing, world) {
  const { attributes } = program;
  const bind = (name, id, size) => {
    if (attributes[name] < 0) return;
    if (!id) {
      gl.disableVertexAttribArray(attributes[name]);
      gl.vertexAttrib4f(attributes[name], 1, 1, 1, 1);
      return;
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, id);
    gl.enableVertexAttribArray(attributes[name]);
    gl.vertexAttribPointer(attributes[name], size, gl.FLOAT, false, 0, 0);
  };
  bind("position", thing.buffers.position, 3);
  bind("normal", thing.buffers.normal, 3);
  bind("place", thing.buffers.place, 2);
  bind("tint", thing.tint?.id, thing.tint?.size);
  gl.uniformMatrix4fv(program.model, false, world);
  gl.uniform1i(program.textured, thing.texture ? 1 : 0);
  gl.uniform4fv(program.colour, thing.colour);
  if (thing.texture) gl.bindTexture(gl.TEXTURE_2D, thing.texture);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, thing.index);
  gl.drawElements(thing.lines ? gl.LINES : gl.TRIANGLES, thing.count, gl.UNSIGNED_INT, 0);
}

function normals(p, index) {
  const out = new Float32Array(p.length);
  for (let i = 0; i + 2 < index.length; i += 3) {
    const [a, b, c] = [index[i] * 3, index[i + 1] * 3, index[i + 2] * 3];
    const u = [0, 1, 2].map((k) => p[b + k] - p[a + k]);
    const v = [0, 1, 2].map((k) => p[c + k] - p[a + k]);
    const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const at of [a, b, c]) for (let k = 0; k < 3; k += 1) out[at + k] += n[k];
  }
  return out;
}

// matrices, column by column

const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];

function times(a, b) {
  const out = new Array(16).fill(0);
  for (let i = 0; i < 4; i += 1) for (let j = 0; j < 4; j += 1) for (let k = 0; k < 4; k += 1) out[4 * j + i] += a[4 * k + i] * b[4 * j + k];
  return out;
}

function local({ told, move }) {
  if (told.matrix) return told.matrix;
  const [x, y, z, w] = move.rotation || told.rotation || [0, 0, 0, 1];
  const t = move.translation || told.translation || [0, 0, 0];
  const s = move.scale || told.scale || [1, 1, 1];
  return [
    s[0] * (1 - 2 * (y * y + z * z)), s[0] * 2 * (x * y + w * z), s[0] * 2 * (x * z - w * y), 0,
    s[1] * 2 * (x * y - w * z), s[1] * (1 - 2 * (x * x + z * z)), s[1] * 2 * (y * z + w * x), 0,
    s[2] * 2 * (x * z + w * y), s[2] * 2 * (y * z - w * x), s[2] * (1 - 2 * (x * x + y * y)), 0,
    ...t, 1,
  ];
}

function at(clip, t) {
  const { times: ts, values, steps } = clip;
  const size = values.length / ts.length;
  let k = ts.length - 1;
  while (k > 0 && ts[k] > t) k -= 1;
  const after = Math.min(k + 1, ts.length - 1);
  const span = ts[after] - ts[k];
  const part = steps || span <= 0 ? 0 : Math.min(1, Math.max(0, (t - ts[k]) / span));
  const a = Array.from(values.slice(k * size, (k + 1) * size));
  const b = Array.from(values.slice(after * size, (after + 1) * size));
  const sign = size === 4 && a.reduce((sum, v, i) => sum + v * b[i], 0) < 0 ? -1 : 1;
  const mixed = a.map((v, i) => v * (1 - part) + sign * b[i] * part);
  if (size !== 4) return mixed;
  const length = Math.hypot(...mixed) || 1;
  return mixed.map((v) => v / length);
}

function bounds(things, nodes) {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (const { node, positions } of things) {
    const m = nodes[node].world;
    for (let i = 0; i < positions.length; i += 3) {
      for (let k = 0; k < 3; k += 1) {
        const v = m[k] * positions[i] + m[4 + k] * positions[i + 1] + m[8 + k] * positions[i + 2] + m[12 + k];
        low[k] = Math.min(low[k], v);
        high[k] = Math.max(high[k], v);
      }
    }
  }
  const middle = low.map((v, k) => (Number.isFinite(v) ? (v + high[k]) / 2 : 0));
  return [middle, Math.max(1e-6, Math.hypot(...high.map((v, k) => v - low[k])) / 2 || 1)];
}

function camera({ yaw, pitch, near }, middle, reach) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const turn = [cy, sp * sy, cp * sy, 0, 0, cp, -sp, 0, -sy, sp * cy, cp * cy, 0, 0, 0, 0, 1];
  const to = [...IDENTITY];
  for (let k = 0; k < 3; k += 1) to[12 + k] = -middle[k];
  const away = [...IDENTITY];
  const distance = reach * near;
  away[14] = -distance;
  const [n, f] = [distance / 50, distance + reach * 4];
  const g = 1.9;
  const lens = [g, 0, 0, 0, 0, g, 0, 0, 0, 0, (f + n) / (n - f), -1, 0, 0, (2 * f * n) / (n - f), 0];
  return new Float32Array(times(lens, times(away, times(turn, to))));
}
