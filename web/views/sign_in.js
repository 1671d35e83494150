// @ts-check
/** Sign-in with an API key, which stays in this tab. */
import { get, signIn, signOutReason } from "../api.js";
import { html, useState } from "../html.js";

export function SignIn() {
  const [key, setKey] = useState("");
  const [error, setError] = useState(signOutReason.value);
  const [busy, setBusy] = useState(false);

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    setBusy(true);
    try {
      await get("/jobs", { limit: 1 }, undefined, key.trim());
      signIn(key.trim());
    } catch (/** @type {any} */ error) {
      setError(error.status === 401 ? `${error.message} Look it up again, or ask the operator for a new one.` : `${error.message} ${error.hint ?? ""}`);
      setBusy(false);
    }
  }

  return html`
    <main class="sign-in">
      <form class="card" onSubmit=${submit}>
        <h1><img src="web/icon.svg" alt="" width="28" height="28" /> FRS distillation</h1>
        <p>Train a small object detector under a large one, and see what it gains.</p>
        <label for="key">API key</label>
        <input id="key" type="password" autocomplete="off" required value=${key} autofocus
          onInput=${(/** @type {any} */ event) => setKey(event.target.value)} aria-describedby="key-hint" />
        <p id="key-hint" class="hint">On one machine, <code>frs up</code> prints the file that holds the key. Elsewhere the
          operator creates one with <code>frs keys create</code>. The key is kept until you close this tab.</p>
        ${error && html`<p class="problem" role="alert">${error}</p>`}
        <button class="primary" disabled=${busy || !key.trim()}>${busy ? "Signing in" : "Sign in"}</button>
      </form>
    </main>`;
}
