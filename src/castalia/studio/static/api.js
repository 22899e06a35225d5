// The server: requests, errors in words, events, uploads.

import { notice } from "./dom.js";

const client = sessionStorage.client || (sessionStorage.client = Math.random().toString(36).slice(2));

export async function ask(path, body, options = {}) {
  const how = { headers: { "x-castalia-client": client }, ...options };
  if (body !== undefined) {
    how.method = "POST";
    how.body = body instanceof Blob ? body : JSON.stringify(body);
    how.headers["content-type"] = body instanceof Blob ? "application/octet-stream" : "application/json";
  }
  const answer = await fetch(path, how).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("The studio does not answer. Is it still running?");
  });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error || `${answer.status} ${answer.statusText}`);
  }
  const kind = answer.headers.get("content-type") || "";
  return kind.startsWith("application/json") ? answer.json() : kind.startsWith("text/") ? answer.text() : answer.blob();
}

// What a handler does; where it fails, the words are shown.
export const tried = (call) => async (...given) => {
  try {
    return await call(...given);
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message, true);
    return undefined;
  }
};

export async function upload(file) {
  return (await ask(`/api/uploads?name=${encodeURIComponent(file.name)}`, file)).id;
}

export const events = new EventTarget();
export const known = new Map(); // jobs by their numbers

export function listen() {
  const source = new EventSource("/api/events");
  for (const kind of ["job", "progress", "training"]) {
    source.addEventListener(kind, (event) => {
      const value = JSON.parse(event.data);
      if (kind === "job") known.set(value.id, value);
      events.dispatchEvent(new CustomEvent(kind, { detail: value }));
    });
  }
  source.addEventListener("open", tried(async () => {
    for (const job of await ask("/api/jobs?most=50")) {
      known.set(job.id, job);
      events.dispatchEvent(new CustomEvent("job", { detail: job }));
    }
  }));
}

// Queue a job; `told` hears of it until it is over. Returns the job as it ended.
export async function run(wish, told) {
  let job = await ask("/api/jobs", wish);
  const over = (one) => ["done", "failed", "cancelled"].includes(one.state);
  return new Promise((resolve, reject) => {
    const hear = (event) => {
      const value = event.detail;
      if (value.id !== job.id) return;
      if (event.type === "job") job = value;
      told?.(job, event.type === "progress" ? value : null);
      if (event.type !== "job" || !over(value)) return;
      stop();
      if (value.state === "done") resolve(value);
      else reject(new Error(value.state === "failed" ? value.message : "Cancelled."));
    };
    const stop = () => {
      events.removeEventListener("job", hear);
      events.removeEventListener("progress", hear);
      clearInterval(timer);
    };
    events.addEventListener("job", hear);
    events.addEventListener("progress", hear);
    // events can be missed while the connection is made anew
    const timer = setInterval(async () => {
      const now = await ask(`/api/jobs/${job.id}`).catch(() => null);
      if (now && over(now)) hear(new CustomEvent("job", { detail: now }));
    }, 3000);
    told?.(job, null);
  });
}
