// @ts-check
/** The audit trail: who changed what. */
import { get } from "../../api.js";
import { Ago } from "../../components/basics.js";
import { Table } from "../../components/table.js";
import { attempt } from "../../components/toast.js";
import { dayStart, NONE } from "../../format.js";
import { html, useState } from "../../html.js";
import { useResource } from "../../resource.js";
import { href, route, setQuery } from "../../router.js";
import { Allowed } from "./allowed.js";

/** @typedef {import("../../types/api").components["schemas"]["AuditEntry"]} Entry */

const FIELDS = /** @type {const} */ ([["owner", "Owner", "team-a"], ["action", "Action", "job.cancel"], ["target", "Id of the object", "job_…"]]);

export function Audit() {
  const { owner, action, target, since } = route.value.query;
  const query = { owner, action, target, since: dayStart(since), limit: 100 };
  const page = useResource((signal) => get("/audit", query, signal), [owner, action, target, since]);
  return html`
    <div class="row">
      ${FIELDS.map(([name, title, example]) => html`<label key=${name}>${title} <input size="12" value=${route.value.query[name] ?? ""} placeholder=${example}
        onChange=${(/** @type {any} */ event) => setQuery({ [name]: event.target.value.trim() })} /></label>`)}
      <label>Since <input type="date" value=${since ?? ""} onChange=${(/** @type {any} */ event) => setQuery({ since: event.target.value })} /></label>
      <button onClick=${() => setQuery({ owner: null, action: null, target: null, since: null })}>Clear</button>
    </div>
    <${Allowed} resource=${page}>${(/** @type {any} */ first) => html`<${Entries} key=${first.data[0]?.id} first=${first} query=${query} />`}<//>`;
}

/** The entries, with older ones on demand. @param {{first: {data: Entry[], next_cursor: string | null}, query: any}} props */
function Entries({ first, query }) {
  const [older, setOlder] = useState({ data: /** @type {Entry[]} */ ([]), next_cursor: first.next_cursor });
  const more = () => attempt(async () => {
    const page = await get("/audit", { ...query, cursor: older.next_cursor });
    setOlder({ data: [...older.data, ...page.data], next_cursor: page.next_cursor });
  });
  return html`<section class="card">
    <${Table} label="Audit trail" columns=${COLUMNS} rows=${[...first.data, ...older.data]} rowKey=${(/** @type {Entry} */ row) => row.id} empty="No change matches the filter." />
    ${older.next_cursor && html`<button onClick=${more}>Load older changes</button>`}
  </section>`;
}

/** Views of objects by the start of their id. */
const VIEWS = { job: "jobs", ds: "datasets", det: "detectors" };

/** @param {{id: string}} props */
function Target({ id }) {
  const view = VIEWS[/** @type {keyof typeof VIEWS} */ (id.split("_")[0])];
  return view ? html`<a href=${href([view, id])}><code>${id}</code></a>` : html`<code>${id}</code>`;
}

/** @type {import("../../components/table.js").Column<Entry>[]} */
const COLUMNS = [
  { name: "at", title: "Time", cell: (row) => html`<${Ago} at=${row.at} />` },
  { name: "action", title: "Action", cell: (row) => html`<a href=${href(["keys", "audit"], { ...route.value.query, action: row.action })}><span class="together">${row.action}</span></a>` },
  { name: "target", title: "Object", cell: (row) => (row.target ? html`<${Target} id=${row.target} />` : NONE) },
  { name: "owner", title: "Owner", cell: (row) => row.owner ?? NONE },
  { name: "details", title: "Details", cell: (row) => Object.entries(row.details).filter(([, value]) => value !== null).map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ") || NONE },
  { name: "address", title: "From", cell: (row) => html`<span class="together">${row.address ?? NONE}</span>` },
  { name: "key", title: "Key", cell: (row) => (row.key_id ? html`<code class="together" title=${row.key_id}>…${row.key_id.slice(-6)}</code>` : NONE) },
  { name: "request", title: "Request", cell: (row) => (row.request_id ? html`<code class="together" title=${row.request_id}>…${row.request_id.slice(-6)}</code>` : NONE) },
];
