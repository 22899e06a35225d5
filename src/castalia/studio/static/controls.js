// Controls from what systems and edits say of their options; `value()` is what was chosen, undefined for the default.

import { tried, upload } from "./api.js";
import { h, unique } from "./dom.js";
import { painter } from "./paint.js";

export function control(told, context) {
  const id = unique();
  const make = makers[told.kind] || makers.text;
  const { field, value, set } = make(told, id, context);
  const several = field instanceof Array ? field : [field];
  const words = told.help ? h("small", { id: `${id}-help` }, told.help) : null;
  const title = told.name.replaceAll("_", " ");
  const element = h("div", { class: "control", "data-name": told.name }, h("label", { htmlFor: id }, title), several, words);
  element.querySelector(`#${id}`)?.setAttribute("aria-describedby", words ? `${id}-help` : "");
  return { name: told.name, element, value, set };
}

export async function values(controls) {
  const found = {};
  for (const one of controls) {
    const value = await one.value();
    if (value !== undefined && value !== "") found[one.name] = value;
  }
  return found;
}

function number(told, id, whole) {
  const step = whole ? 1 : "any";
  const start = told.default ?? "";
  const box = h("input", { type: "number", id, step, value: start, placeholder: told.default ?? "", min: told.low ?? undefined });
  const read = () => (box.value === "" ? undefined : whole ? Math.round(Number(box.value)) : Number(box.value));
  let field = box;
  const slides = typeof told.low === "number" && typeof told.high === "number";
  if (slides) {
    const slide = h("input", {
      type: "range", min: told.low, max: told.high, step: whole ? 1 : (told.high - told.low) / 200, value: start === "" ? told.low : start,
      "aria-label": `${told.name}, slider`, oninput: () => { box.value = slide.value; box.dispatchEvent(new Event("change")); },
    });
    box.addEventListener("input", () => { slide.value = box.value; });
    field = h("div", { class: "row" }, slide, box);
  }
  return { field, value: read, set: (value) => { box.value = value ?? ""; box.dispatchEvent(new Event("input")); } };
}

const makers = {
  number: (told, id) => number(told, id, false),
  integer: (told, id) => number(told, id, true),
  choice(told, id) {
    const choices = told.choices.map((one) => h("option", { value: one }, one));
    const free = told.default === undefined || told.default === null;
    const box = h("select", { id }, free ? h("option", { value: "" }, "any") : null, choices);
    if (!free) box.value = told.default;
    return { field: box, value: () => box.value || undefined, set: (value) => { box.value = value ?? ""; } };
  },
  switch(told, id) {
    const box = h("input", { type: "checkbox", id, checked: Boolean(told.default) });
    return { field: box, value: () => box.checked, set: (value) => { box.checked = Boolean(value); } };
  },
  text(told, id) {
    const long = told.name === "prompt" || told.name === "caption" || told.name === "words";
    const box = long ? h("textarea", { id, rows: 3 }) : h("input", { type: "text", id });
    if (told.default) box.value = told.default;
    return { field: box, value: () => box.value || undefined, set: (value) => { box.value = value ?? ""; } };
  },
  texts(told, id) {
    const box = h("input", { type: "text", id, placeholder: "name=value, name=value" });
    const read = () => (box.value.trim() ? box.value.split(",").map((part) => part.trim()) : undefined);
    return { field: box, value: read, set: (value) => { box.value = (value || []).join(", "); } };
  },
  numbers(told, id) {
    const box = h("input", { type: "text", id, placeholder: "1, 5, 8" });
    const read = () => (box.value.trim() ? box.value.split(",").map((part) => Number.parseInt(part, 10)) : undefined);
    return { field: box, value: read, set: (value) => { box.value = (value || []).join(", "); } };
  },
  example: (told, id, context) => example(told, id, context, false),
  examples: (told, id, context) => example(told, id, context, true),
  mask(told, id, context) {
    const box = painter(id, () => context.picture?.());
    return { field: box.element, value: box.value, set: () => {} };
  },
};

// A file: uploaded, dropped, or one that was made in this room (`context.chosen`).
function example(told, id, context, several) {
  let found = [];
  const shown = h("div", { class: "strip", "aria-live": "polite" });
  const show = () => {
    shown.replaceChildren(...found.map((one) => (one.picture ? h("img", { src: `/api/files/${one.id}`, alt: one.name }) : h("span", {}, one.name))));
    context.changed?.(told.name, found);
  };
  const add = (one) => { found = several ? [...found, one] : [one]; show(); };
  const take = tried(async (files) => {
    for (const file of files) add({ id: await upload(file), name: file.name, picture: file.type.startsWith("image/") });
  });
  const box = h("input", { type: "file", id, multiple: several, onchange: () => take([...box.files]) });
  const used = h("button", { type: "button", onclick: () => {
    const one = context.chosen?.();
    if (one) add(one);
  } }, "Use what is shown");
  const zone = h("div", {
    class: "drop",
    ondragover: (event) => { event.preventDefault(); zone.classList.add("over"); },
    ondragleave: () => zone.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); zone.classList.remove("over"); take([...event.dataTransfer.files]); },
  }, box, context.chosen ? used : null, shown);
  const read = () => (found.length ? (several ? found.map((one) => one.id) : found[0].id) : undefined);
  return { field: zone, value: read, set: () => {} };
}

export async function gave(controls, kinds) {
  const found = await values(controls);
  for (const told of kinds) if (told.kind === "example" && found[told.name]) found[told.name] = { file: found[told.name] };
  return found;
}

