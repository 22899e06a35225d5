// Elements without markup: texts become text, whatever they hold, so that nothing that comes from a file is ever run.

export function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name in made && !name.startsWith("aria") && name !== "list") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function svg(tag, props = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

let clearing = 0;

export function notice(text, bad = false) {
  const place = document.getElementById("notice");
  place.className = bad ? "bad" : "";
  place.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => { place.textContent = ""; }, bad ? 12000 : 5000);
}

export function unique(start = "c") {
  unique.count = (unique.count || 0) + 1;
  return `${start}${unique.count}`;
}

export const ago = (seconds) => new Date(seconds * 1000).toLocaleString();

export function short(value) {
  if (typeof value !== "number") return String(value ?? "");
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString() : Number(value.toPrecision(4)).toString();
}

export function time(seconds) {
  const s = Math.round(seconds);
  return s < 90 ? `${s} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
}
