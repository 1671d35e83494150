// @ts-check
/** Short messages about the outcome of an action. */
import { html, signal } from "../html.js";

/** @typedef {{id: number, text: string, kind: "done" | "failed"}} Toast */
const toasts = signal(/** @type {Toast[]} */ ([]));
let nextId = 0;

/** @param {string} text @param {"done" | "failed"} [kind] */
export function toast(text, kind = "done") {
  const id = nextId++;
  toasts.value = [...toasts.value, { id, text, kind }];
  setTimeout(() => { toasts.value = toasts.value.filter((item) => item.id !== id); }, kind === "failed" ? 10_000 : 4_000);
}

/** Run an action and show how it ended; return its result, or undefined after an error. @template T @param {() => Promise<T>} action @param {string} [done] */
export async function attempt(action, done) {
  try {
    const result = await action();
    if (done) toast(done);
    return result;
  } catch (/** @type {any} */ error) {
    toast([error.message, error.hint].filter(Boolean).join(" "), "failed");
  }
}

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${toasts.value.map((item) => html`<p key=${item.id} class=${`toast ${item.kind}`}>${item.text}</p>`)}
  </div>`;
}
