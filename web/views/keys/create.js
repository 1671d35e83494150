// @ts-check
/** Create an API key, and show its secret once. */
import { idempotencyKey, post } from "../../api.js";
import { ActionButton, Copy, Problem } from "../../components/basics.js";
import { html, useMemo, useState } from "../../html.js";

const SCOPES = /** @type {const} */ ([
  ["read", "read everything of the owner"], ["submit", "also create, change and delete"], ["priority", "priorities above 0, beside submit"],
  ["metrics", "the monitoring metrics alone"], ["admin", "everything, of all owners, and keys"],
]);
const LIMITS = /** @type {const} */ ([
  ["max_active_jobs", "Active jobs at most", 1], ["max_disk_gb", "Disk space at most, in GB", 1e9], ["requests_per_minute", "Requests a minute at most", 1], ["expires_in_days", "Days until it expires", 1],
]);

/** @param {{onCreated: (key: any) => void, onCancel: () => void}} props */
export function CreateForm({ onCreated, onCancel }) {
  const [values, setValues] = useState(/** @type {Record<string, string>} */ ({}));
  const [scopes, setScopes] = useState(["read", "submit"]);
  const [error, setError] = useState(/** @type {any} */ (null));
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setValues({ ...values, [name]: event.target.value });
  const toggle = (/** @type {string} */ scope) => setScopes(scopes.includes(scope) ? scopes.filter((item) => item !== scope) : [...scopes, scope]);

  const key = useMemo(() => idempotencyKey(), [values, scopes]);
  async function submit() {
    const limits = Object.fromEntries(LIMITS.filter(([name]) => values[name]).map(([name, , factor]) => [
      name === "max_disk_gb" ? "max_disk_bytes" : name, name === "max_disk_gb" ? Math.round(Number(values[name]) * factor) : Number(values[name]),
    ]));
    try {
      onCreated(await post("/api-keys", { name: (values.name ?? "").trim(), owner: (values.owner ?? "").trim(), scopes, ...limits }, { "Idempotency-Key": key }));
    } catch (error) {
      setError(error);
    }
  }
  return html`
    <div class="field"><label for="key-name">Name: its purpose</label><input id="key-name" value=${values.name ?? ""} onInput=${set("name")} placeholder="ci" /></div>
    <div class="field"><label for="key-owner">Owner: a team or person</label><input id="key-owner" value=${values.owner ?? ""} onInput=${set("owner")} placeholder="team-a" /></div>
    <fieldset class="field"><legend>Scopes</legend>${SCOPES.map(([scope, meaning]) => html`<div><label>
      <input type="checkbox" checked=${scopes.includes(scope)} onChange=${() => toggle(scope)} /> <code>${scope}</code> <span class="muted">${meaning}</span></label></div>`)}</fieldset>
    <details class="field"><summary>Limits; empty ones are the service's</summary>${LIMITS.map(([name, title]) => html`<div class="field"><label for=${`key-${name}`}>${title}</label>
      <input id=${`key-${name}`} type="number" min="0" step="any" value=${values[name] ?? ""} onInput=${set(name)} /></div>`)}</details>
    ${error && html`<${Problem} error=${error} />`}
    <div class="row end"><button onClick=${onCancel}>Cancel</button>
      <${ActionButton} class="primary" disabled=${!values.name?.trim() || !values.owner?.trim() || !scopes.length} onClick=${submit}>Create<//></div>`;
}

/** The secret of a new key. @param {{created: import("../../types/api").components["schemas"]["NewKey"], onDone: () => void}} props */
export function Secret({ created, onDone }) {
  return html`<section class="card" role="status">
    <h2>The key ${created.name} of ${created.owner}</h2>
    <p>Copy it now: the service keeps only a hash of it and cannot show it again.</p>
    <div class="row"><code>${created.token}</code> <${Copy} text=${created.token} label="Copy the key" /> <button onClick=${onDone}>I have copied it</button></div>
  </section>`;
}
