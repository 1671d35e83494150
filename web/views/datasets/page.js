// @ts-check
/** One data set: facts, actions, and its parts. */
import { get, send } from "../../api.js";
import { ActionButton, Ago, Copy, Facts, Loading, Tabs } from "../../components/basics.js";
import { attempt } from "../../components/toast.js";
import { plural, words } from "../../format.js";
import { html } from "../../html.js";
import { useResource } from "../../resource.js";
import { go, href, route } from "../../router.js";
import { Health } from "./health.js";
import { Pictures } from "./pictures.js";

/** @typedef {import("../../types/api").components["schemas"]["Dataset"]} Dataset */

const SIGNS = { ready: ["good", "✓"], has_problems: ["warn", "!"], checking: ["muted", "◷"] };

/** @param {{status: Dataset["status"]}} props */
export function DatasetStatus({ status }) {
  const [colour, sign] = SIGNS[status];
  return html`<strong class=${colour}><span aria-hidden="true">${sign}</span> ${words(status)}</strong>`;
}

/** @param {{id: string}} props */
export function DatasetPage({ id }) {
  const dataset = useResource((signal) => get(`/datasets/${encodeURIComponent(id)}`, {}, signal), [id], 5);
  return html`${!dataset.data && html`<h1>${id}</h1>`}<${Loading} resource=${dataset}>${(/** @type {Dataset} */ row) => html`<${Loaded} dataset=${row} />`}<//>`;
}

/** @param {{dataset: Dataset}} props */
function Loaded({ dataset }) {
  const part = route.value.path[2] ?? "health";
  const remove = async () => {
    const done = await attempt(() => send("DELETE", `/datasets/${dataset.id}`), `${dataset.name} was deleted.`);
    if (done) go(["datasets"]);
  };
  return html`
    <p><a href="#/datasets">Data sets</a></p>
    <h1>${dataset.name}</h1>
    <div class="row">
      ${dataset.counts?.train && dataset.counts.val && html`<a class="button primary" href=${href(["new"], { recipe: "edge_teacher", dataset: dataset.name })}>Train a teacher on it</a>`}
      <a class="button" href=${href(["jobs"], { dataset: dataset.name })}>Jobs that use it</a>
      <${ActionButton} class="danger" confirm=${dataset.uploaded ? `Delete ${dataset.name} and its uploaded files?` : `Remove ${dataset.name}? Its files stay in the folder.`} onClick=${remove}>
        ${dataset.uploaded ? "Delete" : "Remove"}<//>
    </div>
    <section class="card"><${Facts} items=${facts(dataset)} /></section>
    <${Tabs} label="Parts of the data set" current=${part} items=${[
      { name: "health", title: "Health report", address: href(["datasets", dataset.id]) },
      { name: "pictures", title: "Pictures", address: href(["datasets", dataset.id, "pictures"]) },
    ]} />
    ${part === "pictures" ? html`<${Pictures} dataset=${dataset} />` : html`<${Health} dataset=${dataset} />`}`;
}

/** @param {Dataset} dataset @returns {[any, any][]} */
function facts(dataset) {
  const { classes } = dataset;
  return [
    ["Status", html`<${DatasetStatus} status=${dataset.status} />${dataset.issue_count ? `, ${plural(dataset.issue_count, "problem")}` : ""}`],
    ["Classes", classes && `${classes.length}: ${classes.slice(0, 30).join(", ")}${classes.length > 30 ? " …" : ""}`],
    ["Training split", html`<code>${dataset.train.images}</code>, <code>${dataset.train.annotations}</code>`],
    ["Validation split", html`<code>${dataset.val.images}</code>, <code>${dataset.val.annotations}</code>`],
    ["Source", dataset.uploaded ? "upload; paths are within the unpacked archive" : "folder of data sets of the service"],
    ["Added", html`<${Ago} at=${dataset.created_at} />`],
    ["Id", html`<code>${dataset.id}</code> <${Copy} text=${dataset.id} />`],
  ];
}
