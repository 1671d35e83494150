// @ts-check
/** Actions on the selected jobs. Each is sent to the jobs that allow it now; refusals are listed. */
import { post, send } from "../../api.js";
import { ActionButton } from "../../components/basics.js";
import { Dependents } from "../../components/dependents.js";
import { plural } from "../../format.js";
import { html, useState } from "../../html.js";
import { go } from "../../router.js";
import { MAX_COMPARED } from "../../limits.js";

/** @typedef {import("../../types/api").components["schemas"]["Job"]} Job */
/** @typedef {{job: Job, error: any}} Refusal */
/** @typedef {{text: string, refusals: Refusal[], isRunning?: boolean}} Outcome What a bulk action has done so far. */

const ACTIONS = [
  { action: "resume", title: "Resume", done: "resumed" },
  { action: "pause", title: "Pause", done: "paused" },
  { action: "stop", title: "Stop early", done: "stopped", question: "Their students so far are evaluated and kept.", verb: "Stop" },
  { action: "cancel", title: "Cancel", done: "cancelled", question: "Their baselines, seed runs and comparisons are cancelled too; running jobs end at their next step.", verb: "Cancel" },
  { action: "retry", title: "Retry", done: "started again", question: "They start from scratch; their results are deleted.", verb: "Retry" },
];

/** @param {{jobs: Job[], onDone: () => void, onClear: () => void}} props */
export function BulkActions({ jobs, onDone, onClear }) {
  const [outcome, setOutcome] = useState(/** @type {Outcome | null} */ (null));

  /** @param {Job[]} targets @param {(job: Job) => Promise<any>} request @param {string} done */
  const run = async (targets, request, done) => {
    /** @type {Refusal[]} */
    const refusals = [];
    for (const [index, job] of targets.entries()) {
      setOutcome({ text: `${index} of ${plural(targets.length, "job")} ${done} so far`, refusals: [], isRunning: true });
      try { await request(job); } catch (error) { refusals.push({ job, error }); }
    }
    const changed = targets.length - refusals.length;
    setOutcome({ text: refusals.length ? `${changed} of ${plural(targets.length, "job")} ${done}, ${refusals.length} not` : `${plural(changed, "job")} ${done}`, refusals });
    onDone();
  };
  return html`
    ${outcome && html`<${OutcomeOf} outcome=${outcome} onClose=${() => setOutcome(null)} />`}
    ${jobs.length > 0 && html`
      <div class="card bulk" role="group" aria-label="Actions on the selected jobs">
        <strong role="status">${plural(jobs.length, "job")} selected</strong>
        ${ACTIONS.map((item) => html`<${ActionOnAll} key=${item.action} item=${item} jobs=${jobs} run=${run} />`)}
        <${Delete} jobs=${jobs.filter((job) => allows(job, "delete"))} run=${run} />
        <button disabled=${jobs.length < 2 || jobs.length > MAX_COMPARED} title=${`Compares 2 to ${MAX_COMPARED} jobs.`}
          onClick=${() => go(["compare"], { jobs: jobs.map((job) => job.id).join(",") })}>Compare</button>
        <${Tags} jobs=${jobs} run=${run} />
        <${Priority} jobs=${jobs} run=${run} />
        <span class="grow"></span>
        <button class="quiet" onClick=${onClear}>Clear the selection</button>
      </div>`}`;
}

/** @param {Job} job @param {string} action */
const allows = (job, action) => job.allowed_actions.includes(/** @type {any} */ (action));

/** @typedef {(targets: Job[], request: (job: Job) => Promise<any>, done: string) => Promise<void>} Run */

/** @param {{item: typeof ACTIONS[number], jobs: Job[], run: Run}} props */
function ActionOnAll({ item, jobs, run }) {
  const allowed = jobs.filter((job) => allows(job, item.action));
  const targets = item.action === "cancel" ? heads(allowed) : allowed;
  if (!targets.length) return null;
  const confirm = item.question && `${item.verb} ${plural(targets.length, "job")}? ${item.question}`;
  return html`<${ActionButton} confirm=${confirm} details=${item.action === "cancel" && html`<${Dependents} ids=${targets.map((job) => job.id)} />`} onClick=${() => run(targets, (job) => post(`jobs/${job.id}/${item.action}`), item.done)}>${item.title}${countText(allowed, jobs)}<//>`;
}

/** Return the jobs whose parent is not among them: an action on the parent is one on the others. @param {Job[]} jobs */
function heads(jobs) {
  const ids = new Set(jobs.map((job) => job.id));
  return jobs.filter((job) => !job.parent_id || !ids.has(job.parent_id));
}

/** How many of the selected jobs allow an action, unless all do. @param {Job[]} targets @param {Job[]} jobs */
const countText = (targets, jobs) => (targets.length === jobs.length ? "" : ` (${targets.length})`);

/** @param {{jobs: Job[], run: Run}} props */
function Delete({ jobs, run }) {
  if (!jobs.length) return null;
  const targets = heads(jobs);
  const remove = (/** @type {"delete" | "keep"} */ artifacts) => run(targets, (job) => send("DELETE", `jobs/${job.id}`, { query: { artifacts } }), "deleted");
  const what = `Delete ${plural(targets.length, "job")} with baselines, seed runs and comparisons`;
  return html`
    <${ActionButton} class="danger" confirm=${`${what}, and all their files?`} onClick=${() => remove("delete")}>Delete<//>
    <${ActionButton} class="danger" confirm=${`${what}? Their files stay on disk.`} onClick=${() => remove("keep")}>Delete, keep files<//>`;
}

/** @param {{jobs: Job[], run: Run}} props */
function Tags({ jobs, run }) {
  const [tag, setTag] = useState("");
  const change = (/** @type {(tags: string[]) => string[]} */ edit, /** @type {string} */ done) => run(jobs, (job) =>
    send("PATCH", `jobs/${job.id}`, { json: { tags: edit(job.tags) } }), done).then(() => setTag(""));
  const name = tag.trim();
  return html`<span class="joined">
    <label>Tag <input value=${tag} size="10" maxlength="64" onInput=${(/** @type {any} */ event) => setTag(event.target.value)} /></label>
    <${ActionButton} disabled=${!name} onClick=${() => change((tags) => [...new Set([...tags, name])], "tagged")}>Add<//>
    <${ActionButton} disabled=${!name} onClick=${() => change((tags) => tags.filter((item) => item !== name), "without the tag")}>Remove<//>
  </span>`;
}

/** @param {{jobs: Job[], run: Run}} props */
function Priority({ jobs, run }) {
  const [text, setText] = useState("");
  const priority = Number(text);
  const isValid = text !== "" && Number.isInteger(priority) && Math.abs(priority) <= 100;
  return html`<span class="joined">
    <label>Priority <input type="number" min="-100" max="100" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} /></label>
    <${ActionButton} disabled=${!isValid} onClick=${() => run(jobs, (job) => send("PATCH", `jobs/${job.id}`, { json: { priority } }), `set to priority ${priority}`)}>Set<//>
  </span>`;
}

/** @param {{outcome: Outcome, onClose: () => void}} props */
const OutcomeOf = ({ outcome: { text, refusals, isRunning }, onClose }) => html`
  <div class=${refusals.length ? "problem" : "card"} role=${refusals.length ? "alert" : "status"}>
    <strong>${text}.</strong> ${!isRunning && html`<button class="quiet" onClick=${onClose}>Close</button>`}
    ${refusals.length > 0 && html`<ul>${refusals.map(({ job, error }) => html`<li>${job.name ?? job.id}: ${error.message} ${error.hint}</li>`)}</ul>`}
  </div>`;
