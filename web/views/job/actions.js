// @ts-check
/** Buttons for what the API lets a user do with a job now. */
import { post, send } from "../../api.js";
import { ActionButton, Dialog } from "../../components/basics.js";
import { Dependents } from "../../components/dependents.js";
import { attempt } from "../../components/toast.js";
import { html, useState } from "../../html.js";
import { MAX_COMPARED } from "../../limits.js";
import { go, href } from "../../router.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */

/** Title and question of each action; `done` is the message afterwards. @type {Record<string, {title: string, confirm?: string, danger?: boolean, done: string}>} */
const ACTIONS = {
  pause: { title: "Pause", done: "Pause is requested." },
  resume: { title: "Resume", done: "The job is queued and continues from its last checkpoint." },
  stop: { title: "Stop and keep", confirm: "Stop training at the next step, and keep and evaluate what was learned?", done: "Stop is requested." },
  cancel: { title: "Cancel", confirm: "Cancel the job with its baselines, other seeds and comparison? It ends without a result.", danger: true, done: "Cancel is requested." },
  retry: { title: "Retry from scratch", confirm: "Start again from scratch? Metrics, checkpoints and files of this job are deleted.", danger: true, done: "The job is queued again." },
};

/** @param {{job: Job, reload: () => void}} props */
export function Actions({ job, reload }) {
  const [isEditing, setEditing] = useState(false);
  const allowed = /** @type {string[]} */ (job.allowed_actions);
  const group = [job.kind === "compare" ? null : job.id, job.parent_id, ...job.baseline_job_ids, ...job.seed_job_ids].filter(Boolean);
  const act = async (/** @type {string} */ name) => {
    if (await attempt(() => post(`/jobs/${job.id}/${name}`), ACTIONS[name].done)) reload();
  };
  const remove = async () => {
    if (await attempt(() => send("DELETE", `/jobs/${job.id}`), "The job is deleted.")) go(["jobs"]);
  };
  return html`
    <div class="row" role="group" aria-label="Actions">
      ${Object.entries(ACTIONS).filter(([name]) => allowed.includes(name)).map(([name, action]) => html`
        <${ActionButton} key=${name} class=${action.danger ? "danger" : ""} confirm=${action.confirm} details=${name === "cancel" && html`<${Dependents} ids=${[job.id]} />`} onClick=${() => act(name)}>${action.title}<//>`)}
      ${job.status === "succeeded" && ["distill", "train", "quantize"].includes(job.kind) && html`<a class="button" href=${href(["jobs", job.id, "files"])}>Export, or try it on a picture</a>`}
      ${job.kind === "train" && !job.parent_id && ["queued", "running", "succeeded"].includes(job.status) && html`
        <a class="button primary" href=${href(["new"], { recipe: "edge_student", dataset: job.spec.dataset, teacher: job.id })}>Distil a student from it</a>`}
      <button onClick=${() => setEditing(true)}>Edit name, tags, priority</button>
      ${job.kind !== "compare" && html`<a class="button" href=${href(["new"], { from: job.parent_id ?? job.id })}>Start a similar job</a>`}
      <a class="button" href=${href(["compare"], { jobs: group.slice(0, MAX_COMPARED).join() })}>Compare</a>
      ${allowed.includes("delete") && html`<${ActionButton} class="danger" onClick=${remove}
        confirm="Delete the job with its baselines, other seeds, comparison and all their files?">Delete<//>`}
    </div>
    ${isEditing && html`<${Edit} job=${job} onClose=${() => setEditing(false)} onSaved=${reload} />`}`;
}

/** @param {{job: Job, onClose: () => void, onSaved: () => void}} props */
function Edit({ job, onClose, onSaved }) {
  const save = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const text = (/** @type {string} */ name) => String(form.get(name)).trim();
    const json = { name: text("name") || null, tags: text("tags").split(",").map((tag) => tag.trim()).filter(Boolean), priority: Number(text("priority")) };
    const changes = Object.fromEntries(Object.entries(json).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(/** @type {any} */ (job)[name])));
    if (await attempt(() => send("PATCH", `/jobs/${job.id}`, { json: changes }), "Saved.")) {
      onSaved();
      onClose();
    }
  };
  return html`<${Dialog} title="Edit the job" onClose=${onClose}>
    <form onSubmit=${save}>
      <div class="field"><label for="edit-name">Name</label><input id="edit-name" name="name" maxlength="100" defaultValue=${job.name ?? ""} /></div>
      <div class="field"><label for="edit-tags">Tags, separated by commas</label><input id="edit-tags" name="tags" defaultValue=${job.tags.join(", ")} /></div>
      <div class="field"><label for="edit-priority">Priority</label><input id="edit-priority" name="priority" type="number" step="1" defaultValue=${job.priority} />
        <span class="hint">Higher ones run first; above 0 the key needs the scope <code>priority</code>.</span></div>
      <div class="row end"><button type="button" onClick=${onClose}>Cancel</button><button class="primary">Save</button></div>
    </form>
  <//>`;
}
