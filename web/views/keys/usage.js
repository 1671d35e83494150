// @ts-check
/** Stored files by owner; the overview shows the disks. */
import { get } from "../../api.js";
import { Loading, ProgressBar } from "../../components/basics.js";
import { Table } from "../../components/table.js";
import { bytes, percent } from "../../format.js";
import { html } from "../../html.js";
import { useResource } from "../../resource.js";
import { href, route, setQuery } from "../../router.js";

/** @typedef {import("../../types/api").components["schemas"]["OwnerUsage"]} OwnerUsage */
/** @typedef {import("../../types/api").components["schemas"]["Usage"]} UsageData */

export function Usage() {
  const usage = useResource((signal) => get("/usage", {}, signal), [], 30);
  return html`<${Loading} resource=${usage}>${(/** @type {UsageData} */ { owners }) => html`
    <section class="card"><h2>Stored files by owner</h2>
      <${Table} label="Stored files by owner" columns=${OWNER_COLUMNS} rows=${owners} rowKey=${(/** @type {OwnerUsage} */ row) => row.owner}
        order=${route.value.query.order ?? "-total"} onOrder=${(/** @type {string} */ order) => setQuery({ order })} />
      <p class="hint">An admin key sees all owners, other keys their own. Free space with <code>frs clean</code>, or delete jobs and data sets.</p>
    </section>`}<//>`;
}

/** @type {import("../../components/table.js").Column<OwnerUsage>[]} */
const OWNER_COLUMNS = [
  { name: "owner", title: "Owner", sort: (row) => row.owner, cell: (row) => html`<a href=${href(["keys", "audit"], { owner: row.owner })} title="Changes by this owner">${row.owner}</a>` },
  ...[["checkpoints", "Checkpoints"], ["artifacts", "Artifacts"], ["datasets", "Data sets"], ["detectors", "Detectors"], ["total", "Total"]].map(([kind, title]) => ({
    name: kind, title, numeric: true,
    sort: (/** @type {any} */ row) => row[kind], cell: (/** @type {any} */ row) => bytes(row[kind]),
  })),
  { name: "limit", title: "Of the limit", cell: (row) => html`<${ProgressBar} value=${row.total / row.limit} label=${`Space of ${row.owner}`} text=${`${percent(row.total / row.limit)} of ${bytes(row.limit)}`} />` },
];
