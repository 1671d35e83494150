// @ts-check
/** Sweeps: all of them, one with its settings and verdict, and a form for a new one. */
import { get } from "../api.js";
import { Ago, Loading } from "../components/basics.js";
import { Table } from "../components/table.js";
import { NONE, number } from "../format.js";
import { html } from "../html.js";
import { useResource } from "../resource.js";
import { href, route, setQuery } from "../router.js";
import { Details, State } from "./sweeps/details.js";
import { NewSweep } from "./sweeps/new_sweep.js";

/** @typedef {import("../types/api").components["schemas"]["Sweep"]} Sweep */

const REFRESH_SECONDS = 10;

export function View() {
  const id = route.value.path[1];
  if (id === "new") return html`<h1>New sweep</h1><${NewSweep} />`;
  return id ? html`<${Details} key=${id} id=${id} />` : html`<${All} />`;
}

function All() {
  const sweeps = useResource(async (signal) => /** @type {Sweep[]} */ ((await get("/sweeps", { limit: 200 }, signal)).data), [], REFRESH_SECONDS);
  return html`
    <h1>Sweeps</h1>
    <div class="row">
      <a class="button primary" href=${href(["sweeps", "new"])}>New sweep</a>
      <span class="muted">A sweep searches over fields of a job spec. Its verdict is over seeds that took no part in the choice.</span>
    </div>
    <section class="card"><${Loading} resource=${sweeps}>${(/** @type {Sweep[]} */ rows) => html`
      <${Table} label="Sweeps" columns=${COLUMNS} rows=${rows} rowKey=${(/** @type {Sweep} */ row) => row.id} empty="No sweep yet."
        order=${route.value.query.order ?? ""} onOrder=${(/** @type {string} */ order) => setQuery({ order })} />`}<//></section>`;
}

/** @type {import("../components/table.js").Column<Sweep>[]} */
const COLUMNS = [
  { name: "name", title: "Sweep", sort: (row) => row.name ?? row.id, cell: (row) => html`<a href=${href(["sweeps", row.id])}>${row.name || row.id}</a>` },
  { name: "status", title: "Status", sort: (row) => row.status, cell: (row) => html`<${State} sweep=${row} />` },
  { name: "space", title: "Searched", cell: (row) => Object.keys(row.spec.space).join(", ") },
  { name: "settings", title: "Settings", numeric: true, sort: (row) => row.settings, cell: (row) => number(row.settings) },
  { name: "trials", title: "Trials ended", numeric: true, sort: (row) => row.trials_ended, cell: (row) => `${number(row.trials_ended)} of ${number(row.trials_posted)}` },
  { name: "minutes", title: "Minutes", numeric: true, sort: (row) => row.minutes, cell: (row) => number(Math.round(row.minutes)) },
  { name: "owner", title: "Owner", sort: (row) => row.owner, cell: (row) => row.owner ?? NONE },
  { name: "created", title: "Created", sort: (row) => row.created_at, cell: (row) => html`<${Ago} at=${row.created_at} />` },
];
