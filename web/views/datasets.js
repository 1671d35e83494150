// @ts-check
/** Data sets: the list, uploads, and the address of each. */
import { getAll, post } from "../api.js";
import { ActionButton, Ago, Loading } from "../components/basics.js";
import { Table } from "../components/table.js";
import { attempt } from "../components/toast.js";
import { number } from "../format.js";
import { html, useState } from "../html.js";
import { useResource } from "../resource.js";
import { go, href, route, setQuery } from "../router.js";
import { DatasetPage, DatasetStatus } from "./datasets/page.js";
import { UploadForm } from "./datasets/upload.js";

/** @typedef {import("../types/api").components["schemas"]["Dataset"]} Dataset */

export function View() {
  const [, id] = route.value.path;
  return id ? html`<${DatasetPage} key=${id} id=${id} />` : html`<${List} />`;
}

function List() {
  const datasets = useResource(() => getAll("/datasets", { limit: 200 }), [], 10);
  return html`
    <h1>Data sets</h1>
    <div class="grid">
      <section class="card"><h2>Upload</h2><${UploadForm} /></section>
      <section class="card"><h2>Register a folder of the service</h2><${RegisterForm} /></section>
    </div>
    <section class="card">
      <${Loading} resource=${datasets}>${(/** @type {Dataset[]} */ rows) => html`
        <${Table} label="Data sets" columns=${COLUMNS} rows=${rows} rowKey=${(/** @type {Dataset} */ row) => row.id}
          order=${route.value.query.order ?? ""} onOrder=${(/** @type {string} */ order) => setQuery({ order })}
          empty="No data set yet. Upload an archive above, or register a folder." />`}<//>
    </section>`;
}

/** @type {import("../components/table.js").Column<Dataset>[]} */
const COLUMNS = [
  { name: "name", title: "Name", sort: (row) => row.name, cell: (row) => html`<a href=${href(["datasets", row.id])}>${row.name}</a>` },
  { name: "status", title: "Status", sort: (row) => row.status, cell: (row) => html`<${DatasetStatus} status=${row.status} />` },
  { name: "train", title: "Training images", numeric: true, sort: (row) => row.counts?.train?.images, cell: (row) => number(row.counts?.train?.images) },
  { name: "val", title: "Validation images", numeric: true, sort: (row) => row.counts?.val?.images, cell: (row) => number(row.counts?.val?.images) },
  { name: "boxes", title: "Boxes", numeric: true, sort: boxes, cell: (row) => number(boxes(row)) },
  { name: "classes", title: "Classes", numeric: true, sort: (row) => row.classes?.length, cell: (row) => number(row.classes?.length) },
  { name: "problems", title: "Problems", numeric: true, sort: (row) => row.issue_count, cell: (row) => number(row.issue_count) },
  { name: "source", title: "Source", sort: (row) => Number(row.uploaded), cell: (row) => (row.uploaded ? "upload" : "folder") },
  { name: "created", title: "Added", sort: (row) => row.created_at, cell: (row) => html`<${Ago} at=${row.created_at} />` },
];

/** @param {Dataset} row */
function boxes(row) {
  return row.counts ? (row.counts.train?.boxes ?? 0) + (row.counts.val?.boxes ?? 0) : undefined;
}

function RegisterForm() {
  const [name, setName] = useState("");
  const register = async () => {
    const row = await attempt(() => post("/datasets", { name: name.trim() }), "Registered.");
    if (row) go(["datasets", row.id]);
  };
  return html`
    <p class="hint">For COCO files that lie already in the folder of data sets (<code>frs up --datasets</code>): <code>NAME/train</code>,${" "}
      <code>NAME/val</code>, <code>NAME/annotations/instances_train.json</code> and <code>instances_val.json</code>.</p>
    <div class="field"><label for="register-name">Name of the folder</label>
      <input id="register-name" value=${name} placeholder="cells" onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></div>
    <${ActionButton} disabled=${!name.trim()} onClick=${register}>Register<//>`;
}
