// @ts-check
/** The jobs that fail if others are cancelled. */
import { get } from "../api.js";
import { plural } from "../format.js";
import { html } from "../html.js";
import { useResource } from "../resource.js";
import { JobLink, Loading, Status } from "./basics.js";

/** @typedef {import("../types/api").components["schemas"]["DependentJob"]} DependentJob */

const MAX_LISTED = 10;

/** @param {{ids: string[]}} props */
export function Dependents({ ids }) {
  const dependents = useResource((signal) => load(ids, signal), [ids.join()]);
  return html`<${Loading} resource=${dependents}>${(/** @type {DependentJob[]} */ jobs) => (jobs.length === 0 ? html`<p class="hint">No other job needs the student.</p>` : html`
    <p class="warn" role="status">${jobs.length === 1 ? "1 other job needs the student and will fail; its baseline runs alone" : `${plural(jobs.length, "other job")} need the student and will fail; their baselines run alone`}:</p>
    <ul>${jobs.slice(0, MAX_LISTED).map((job) => html`<li key=${job.id}><${JobLink} id=${job.id} name=${job.name} /> <${Status} status=${job.status} /></li>`)}
      ${jobs.length > MAX_LISTED && html`<li>and ${plural(jobs.length - MAX_LISTED, "other")}</li>`}</ul>`)}<//>`;
}

/** Return the dependents of the jobs that are none of them. @param {string[]} ids @param {AbortSignal} signal @returns {Promise<DependentJob[]>} */
async function load(ids, signal) {
  const jobs = await Promise.all(ids.map((id) => get(`jobs/${id}`, {}, signal)));
  const dependents = new Map(jobs.flatMap((job) => job.dependents.map((/** @type {DependentJob} */ item) => [item.id, item])));
  ids.forEach((id) => dependents.delete(id));
  return [...dependents.values()];
}
