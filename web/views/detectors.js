// @ts-check
/** Detectors: the list, uploads of weights, and the address of each. */
import { get, getAll, post, send } from "../api.js";
import { ActionButton, Ago, Copy, Facts, JobLink, Loading, Problem } from "../components/basics.js";
import { Hash } from "../components/files.js";
import { Table } from "../components/table.js";
import { attempt } from "../components/toast.js";
import { TryIt } from "../components/try_it.js";
import { number, points, words } from "../format.js";
import { html, useState } from "../html.js";
import { useResource } from "../resource.js";
import { go, href, route, setQuery } from "../router.js";
import { JobForm, UploadForm } from "./detectors/forms.js";

/** @typedef {import("../types/api").components["schemas"]["Detector"]} Detector */

export function View() {
  const [, id] = route.value.path;
  return id ? html`<${One} key=${id} id=${id} />` : html`<${List} />`;
}

function List() {
  const detectors = useResource(() => getAll("/detectors", { limit: 200 }), [], 10);
  return html`
    <h1>Detectors</h1>
    <p>Weights by name, for <code>teacher</code>, <code>student</code> and <code>init</code> in jobs. Students of jobs can also be used without a name: by the id of their job.</p>
    <div class="grid">
      <section class="card"><h2>Upload weights</h2><${UploadForm} /></section>
      <section class="card"><h2>Name the student of a job</h2><${JobForm} /></section>
    </div>
    <section class="card">
      <${Loading} resource=${detectors}>${(/** @type {Detector[]} */ rows) => html`
        <${Table} label="Detectors" columns=${COLUMNS} rows=${rows} rowKey=${(/** @type {Detector} */ row) => row.id}
          order=${route.value.query.order ?? ""} onOrder=${(/** @type {string} */ order) => setQuery({ order })}
          empty="No detector yet. Upload weights above, or name the student of a job that has succeeded." />`}<//>
    </section>`;
}

const SIGNS = { ready: ["good", "✓"], importing: ["muted", "◷"], refused: ["bad", "✕"] };

/** @param {{status: Detector["status"]}} props */
function DetectorStatus({ status }) {
  const [colour, sign] = SIGNS[status];
  return html`<strong class=${colour}><span aria-hidden="true">${sign}</span> ${words(status)}</strong>`;
}

/** "gfl, ResNet 18". @param {any} description */
function summary(description) {
  if (description.config) return description.config;
  const backbone = description.backbone;
  return [description.architecture, backbone && [backbone.type, backbone.depth].filter(Boolean).join(" ")].filter(Boolean).join(", ");
}

/** @param {Detector} row */
const source = (row) => (row.job_id ? html`<${JobLink} id=${row.job_id} />` : row.weights_file ? html`<code>${row.weights_file}</code>` : "upload");

/** @type {import("../components/table.js").Column<Detector>[]} */
const COLUMNS = [
  { name: "name", title: "Name", sort: (row) => row.name, cell: (row) => html`<a href=${href(["detectors", row.id])}>${row.name}</a>` },
  { name: "status", title: "Status", sort: (row) => row.status, cell: (row) => html`<${DetectorStatus} status=${row.status} />` },
  { name: "description", title: "Architecture", sort: (row) => summary(row.description), cell: (row) => summary(row.description) },
  { name: "classes", title: "Classes", numeric: true, sort: (row) => row.classes?.length, cell: (row) => number(row.classes?.length) },
  { name: "mAP", title: "mAP", numeric: true, sort: (row) => row.mAP, cell: (row) => points(row.mAP) },
  { name: "source", title: "Source", cell: source },
  { name: "created", title: "Added", sort: (row) => row.created_at, cell: (row) => html`<${Ago} at=${row.created_at} />` },
];

/** @param {{id: string}} props */
function One({ id }) {
  const detector = useResource((signal) => get(`/detectors/${encodeURIComponent(id)}`, {}, signal), [id], 3);
  return html`${!detector.data && html`<h1>${id}</h1>`}<${Loading} resource=${detector}>${(/** @type {Detector} */ row) => html`<${Loaded} row=${row} />`}<//>`;
}

/** @param {{row: Detector}} props */
function Loaded({ row }) {
  const remove = async () => {
    if (await attempt(() => send("DELETE", `/detectors/${row.id}`), `${row.name} was deleted.`)) go(["detectors"]);
  };
  return html`
    <p><a href="#/detectors">Detectors</a></p>
    <h1>${row.name}</h1>
    <div class="row">
      <${ActionButton} class="danger" confirm=${`Delete the detector ${row.name}?${row.job_id || row.weights_file ? " Its weights are kept." : " Its uploaded weights are deleted."}`} onClick=${remove}>Delete<//>
    </div>
    ${row.error && html`<${Problem} error=${row.error} />`}
    ${row.status === "importing" && html`<p role="status">A worker reads the file. This page continues by itself.</p>`}
    <section class="card"><${Facts} items=${facts(row)} /></section>
    ${row.status === "ready" && html`<section class="card"><h2>Try it on a picture</h2><${Try} row=${row} /></section>`}`;
}

/** @param {Detector} row @returns {[any, any][]} */
function facts(row) {
  const { classes } = row;
  return [
    ["Status", html`<${DetectorStatus} status=${row.status} />`],
    ["Architecture", summary(row.description)],
    ["Classes", classes ? `${classes.length}: ${classes.slice(0, 30).join(", ")}${classes.length > 30 ? " …" : ""}` : "unknown; a job compares them when it loads the weights"],
    ["mAP", typeof row.mAP === "number" ? `${points(row.mAP)} points on the validation images of its job` : "unknown: only a job measures it"],
    ["Weights", source(row)],
    ["SHA-256", html`<${Hash} value=${row.sha256} />`],
    ["Added", html`<${Ago} at=${row.created_at} />`],
    ["Id", html`<code>${row.id}</code> <${Copy} text=${row.id} />`],
    ["Description", html`<details><summary>as JSON</summary><pre>${JSON.stringify(row.description, null, 2)}</pre></details>`],
  ];
}

/** Predictions of the detector, whose export needs a data set to compare on. @param {{row: Detector}} props */
function Try({ row }) {
  const datasets = useResource(() => getAll("/datasets", { limit: 200 }), []);
  const usable = (datasets.data ?? []).filter((dataset) => dataset.status === "ready");
  const [chosen, setChosen] = useState("");
  const dataset = chosen || (usable.find((item) => item.classes?.join() === row.classes?.join()) ?? usable[0])?.name;
  const startExport = (/** @type {string} */ format) => post("/jobs", {
    kind: "export", name: `${row.name}-export`.slice(0, 100), dataset, student: { detector: row.name }, export: { formats: [format] }, resources: { devices: 0 },
  });
  const sources = [{ role: "detector", title: row.name, path: `/detectors/${row.id}/predict`, startExport: dataset ? startExport : undefined }];
  return html`
    <p class="hint">The service runs the newest export of the detector. An export is compared with the detector on the validation images of a data set.</p>
    ${usable.length > 0 && html`<div class="row"><label>Data set <select value=${dataset} onChange=${(/** @type {any} */ event) => setChosen(event.target.value)}>
      ${usable.map((item) => html`<option value=${item.name}>${item.name}</option>`)}</select></label></div>`}
    <${TryIt} key=${dataset} sources=${sources} dataset=${dataset ?? null} />`;
}
