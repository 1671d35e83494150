// @ts-check
/** API keys: list, create, revoke. */
import { getAll, send } from "../../api.js";
import { ActionButton, Ago, Dialog } from "../../components/basics.js";
import { Table } from "../../components/table.js";
import { attempt } from "../../components/toast.js";
import { bytes, number, time } from "../../format.js";
import { html, useState } from "../../html.js";
import { useResource } from "../../resource.js";
import { route, setQuery } from "../../router.js";
import { Allowed } from "./allowed.js";
import { CreateForm, Secret } from "./create.js";

/** @typedef {import("../../types/api").components["schemas"]["Key"]} Key */
/** @typedef {import("../../types/api").components["schemas"]["NewKey"]} NewKey */

export function Keys() {
  const keys = useResource(() => getAll("/api-keys", { limit: 200 }), []);
  const [creating, setCreating] = useState(false);
  const [created, setCreated] = useState(/** @type {NewKey | null} */ (null));
  const all = route.value.query.all === "1";
  const shown = (/** @type {Key[]} */ rows) => (all ? rows : rows.filter((row) => stateOf(row) === "valid"));
  const done = (/** @type {NewKey} */ key) => { setCreating(false); setCreated(key); keys.reload(); };
  return html`<${Allowed} resource=${keys}>${(/** @type {Key[]} */ rows) => html`
    ${created && html`<${Secret} created=${created} onDone=${() => setCreated(null)} />`}
    <div class="row">
      <button class="primary" onClick=${() => setCreating(true)}>Create a key</button>
      <label><input type="checkbox" checked=${all} onChange=${() => setQuery({ all: all ? null : "1" })} /> show revoked and expired keys</label>
      <span class="muted">Owners share jobs, data sets and detectors with all keys of the same owner.</span>
    </div>
    <section class="card">
      <${Table} label="API keys" columns=${columns(keys.reload)} rows=${shown(rows)} rowKey=${(/** @type {Key} */ row) => row.id}
        order=${route.value.query.order ?? ""} onOrder=${(/** @type {string} */ order) => setQuery({ order })} />
    </section>
    ${creating && html`<${Dialog} title="Create a key" onClose=${() => setCreating(false)}><${CreateForm} onCreated=${done} onCancel=${() => setCreating(false)} /><//>`}`}<//>`;
}

/** @param {Key} key */
function stateOf(key) {
  if (key.revoked_at) return "revoked";
  return key.expires_at && Date.parse(key.expires_at) < Date.now() ? "expired" : "valid";
}

/** @param {() => void} reload @returns {import("../../components/table.js").Column<Key>[]} */
function columns(reload) {
  const revoke = async (/** @type {Key} */ key) => {
    await attempt(() => send("DELETE", `/api-keys/${key.id}`), `The key ${key.name} was revoked.`);
    reload();
  };
  return [
    { name: "name", title: "Name", sort: (row) => row.name, cell: (row) => row.name },
    { name: "owner", title: "Owner", sort: (row) => row.owner, cell: (row) => row.owner },
    { name: "prefix", title: "Begins with", cell: (row) => html`<code>${row.prefix}…</code>` },
    { name: "scopes", title: "Scopes", cell: (row) => row.scopes.join(", ") },
    { name: "jobs", title: "Jobs at most", numeric: true, cell: (row) => (row.max_active_jobs === null ? "default" : number(row.max_active_jobs)) },
    { name: "disk", title: "Disk at most", numeric: true, cell: (row) => (row.max_disk_bytes === null ? "default" : bytes(row.max_disk_bytes)) },
    { name: "rate", title: "Requests / min", numeric: true, cell: (row) => (row.requests_per_minute === null ? "default" : number(row.requests_per_minute)) },
    { name: "created", title: "Created", sort: (row) => row.created_at, cell: (row) => html`<${Ago} at=${row.created_at} />` },
    { name: "expires", title: "Expires", sort: (row) => row.expires_at, cell: (row) => (row.expires_at ? time(row.expires_at) : "never") },
    {
      name: "state", title: "State", sort: stateOf, cell: (row) => (stateOf(row) !== "valid"
        ? html`<span class="muted">${stateOf(row)}</span>`
        : html`<${ActionButton} class="danger" confirm=${`Revoke the key ${row.name} of ${row.owner}? Requests with it are rejected; the jobs continue.`} onClick=${() => revoke(row)}>Revoke<//>`),
    },
  ];
}
