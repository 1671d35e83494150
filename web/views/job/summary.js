// @ts-check
/** Summary of a job: facts, its history in plain words, and its spec. */
import { get, getAll } from "../../api.js";
import { Ago, Copy, Facts, JobLink, Loading } from "../../components/basics.js";
import { between, clock, count, duration, NONE, time, words } from "../../format.js";
import { html } from "../../html.js";
import { useResource } from "../../resource.js";
import { capital, detectorOf } from "../../roles.js";
import { href, route, setQuery } from "../../router.js";
import { useStreamed } from "./streamed.js";
import { timeline } from "./timeline.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */
/** @typedef {import("./live.js").LiveJob} LiveJob */

/** @param {{job: Job, live: LiveJob, related: Job[]}} props */
export function Tab({ job, live, related }) {
  return html`
    <div class="grid">
      <section class="card"><h2>Facts</h2><${JobFacts} job=${job} related=${related} /></section>
      <section class="card"><h2>Attempts</h2><${Attempts} job=${job} /></section>
    </div>
    <section class="card"><h2>History</h2><${History} job=${job} live=${live} /></section>
    <section class="card"><${Spec} job=${job} related=${related} /></section>`;
}

/** @param {{job: Job, related: Job[]}} props */
function JobFacts({ job, related }) {
  const { spec } = job;
  const trains = ["distill", "train", "quantize"].includes(job.kind);
  return html`<${Facts} items=${[
    ["Id", html`<code>${job.id}</code> <${Copy} text=${job.id} />`],
    ["Data set", html`<a href=${href(["datasets", spec.dataset])}>${spec.dataset}</a>`],
    ...(spec.teacher ? [["Teacher", detector(spec.teacher, related)]] : []),
    ...(spec.student ? [[capital(detectorOf(job)), detector(spec.student, related)]] : []),
    ...(trains ? [["Training", schedule(spec.schedule)]] : []),
    ["Owner, priority", `${job.owner}, ${job.priority}`],
    ["Submitted", time(job.created_at)],
    ["Started", time(job.started_at)],
    ["Ended", time(job.finished_at)],
    ["Time from start to end", job.started_at ? duration(between(job.started_at, job.finished_at)) : NONE],
    ...Object.entries(spec.metadata ?? {}),
  ]} />`;
}

/** A reference to a detector or its description, in few words. @param {any} reference @param {Job[]} related */
function detector(reference, related) {
  if (reference.job) return html`of job <${JobLink} id=${reference.job} name=${related.find((job) => job.id === reference.job)?.name} />`;
  if (reference.detector) return html`<a href=${href(["detectors", reference.detector])}>${reference.detector}</a>`;
  if (!reference.architecture) return Object.entries(reference).filter(([, value]) => value !== null).map(([name, value]) => `${words(name)} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
  const { type, depth, width } = reference.backbone ?? {};
  const init = typeof reference.init === "string" ? reference.init : reference.init?.weights;
  return [reference.architecture, [type, depth].filter(Boolean).join(" "), width && `width ${width}`, init && `from ${init}`].filter(Boolean).join(", ");
}

/** @param {any} value */
function schedule(value) {
  const size = value.image_size ? `, ${value.image_size.join(" x ")} pixels` : "";
  return `${value.max_steps ? `${count(value.max_steps)} steps` : value.epochs ? `${value.epochs} epochs` : "epochs of the base config"}, batches of ${value.batch_size}${size}, seed ${value.seed}`;
}

/** @param {{job: Job}} props */
function Attempts({ job }) {
  if (!job.attempts.length) return html`<p class="empty">No worker has claimed the job yet. <a href="#/">See the queue and the workers</a></p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Attempts"><table>
    <thead><tr><th class="numeric">No.</th><th>Worker</th><th>Started</th><th>From step</th><th>Lasted</th><th>End</th></tr></thead>
    <tbody>${[...job.attempts].reverse().map((attempt) => html`<tr key=${attempt.number}>
      <td class="numeric">${attempt.number}</td><td>${attempt.worker}</td><td class="nowrap"><${Ago} at=${attempt.started_at} /></td>
      <td>${attempt.start_step ?? NONE}</td><td class="nowrap">${duration(between(attempt.started_at, attempt.ended_at))}</td><td class="nowrap">${attempt.end ? words(attempt.end) : "runs"}</td></tr>`)}</tbody>
  </table></div>`;
}

/** Events that change the history. */
const TYPES = ["status", "phase", "rewound", "evaluation", "checkpoint", "artifact", "changed", "cleaned", "pause_requested", "stop_requested", "cancel_requested"];

/** @param {{job: Job, live: LiveJob}} props */
function History({ job, live }) {
  const resource = useResource(() => getAll(`/jobs/${job.id}/events`, { limit: 200 }, 5000), [job.id]);
  const events = useStreamed(resource.data, resource.reload, live, (event) => (TYPES.includes(event.type) ? [event] : []));
  return html`<${Loading} resource=${{ ...resource, data: events }}>${(/** @type {any[]} */ rows) => html`<${Timeline} entries=${timeline(rows, job)} />`}<//>`;
}

/** @param {{entries: import("./timeline.js").Entry[]}} props */
function Timeline({ entries }) {
  const days = new Set(entries.map((entry) => entry.at.slice(0, 10))).size;
  const long = Math.max(...entries.map((entry) => entry.seconds ?? 0), 1e-9);
  return html`<div class="scroll tall" tabindex="0" role="region" aria-label="History"><table class="history">
    <thead><tr><th>Time</th><th>Event</th><th class="numeric">Lasted</th><th class="wide"><span class="visually-hidden">Share of the longest</span></th></tr></thead>
    <tbody>${entries.map((entry, index) => {
      const isNow = index === entries.length - 1 && (entry.kind === "work" || entry.kind === "wait");
      return html`<tr key=${index}>
        <td class="muted"><time datetime=${entry.at}>${days > 1 ? time(entry.at) : clock(entry.at)}</time></td>
        <td class=${entry.kind === "mark" ? "indented" : entry.kind === "bad" ? "bad" : ""}>${entry.text}</td>
        <td class="numeric">${entry.seconds === null ? (isNow ? "now" : "") : duration(entry.seconds)}</td>
        <td class="wide">${entry.seconds !== null && html`<div class=${`share ${entry.kind}`} style=${{ width: `${(100 * entry.seconds) / long}%` }}></div>`}</td></tr>`;
    })}</tbody></table></div>`;
}

/** @param {{job: Job, related: Job[]}} props */
function Spec({ job, related }) {
  const yaml = useResource(() => import("../../vendor/js-yaml.js"), []);
  const against = route.value.query.against ?? "";
  const text = useResource(() => get("/jobs", { limit: 50 }), []);
  const others = /** @type {Job[]} */ ([...related, ...(text.data?.data ?? []).filter((/** @type {Job} */ other) => !related.some((item) => item.id === other.id))]).filter((other) => other.id !== job.id);
  return html`
    <div class="row"><h2>Spec</h2><span class="grow"></span>
      <label for="against">Compare with job</label>
      <input id="against" key=${against} list="against-jobs" placeholder="id of a job" size="32" defaultValue=${against} onChange=${(/** @type {any} */ event) => setQuery({ against: event.target.value.trim() })} />
      <datalist id="against-jobs">${others.map((other) => html`<option value=${other.id}>${other.name ?? other.kind}</option>`)}</datalist>
      ${against && html`<button class="quiet" onClick=${() => setQuery({ against: null })}>Clear</button>`}
    </div>
    ${against && html`<${Differences} job=${job} against=${against} />`}
    <${Loading} resource=${yaml}>${(/** @type {any} */ { dump }) => {
      const document = dump(job.spec, { lineWidth: 120, noRefs: true });
      return html`<div class="row"><span class="muted">as submitted, with all defaults</span><span class="grow"></span><${Copy} text=${document} label="Copy YAML" /></div><pre tabindex="0" aria-label="Spec as YAML">${document}</pre>`;
    }}<//>`;
}

/** @param {{job: Job, against: string}} props */
function Differences({ job, against }) {
  const resource = useResource(async (abort) => {
    if (against === job.id) return [];
    return (await get("/compare", { jobs: `${job.id},${against}`, keys: "none", max_points: 32 }, abort)).differences;
  }, [job.id, against]);
  const show = (/** @type {any} */ value) => (value === null ? html`<span class="muted">not set</span>` : html`<code>${typeof value === "string" ? value : JSON.stringify(value)}</code>`);
  return html`<${Loading} resource=${resource}>${(/** @type {any[]} */ differences) => (differences.length ? html`
    <div class="scroll" tabindex="0" role="region" aria-label="Differences of the specs"><table>
      <thead><tr><th>Field</th><th>This job</th><th>The other</th></tr></thead>
      <tbody>${differences.map(({ path, values }) => html`<tr key=${path}><th scope="row"><code>${path}</code></th><td>${show(values[0])}</td><td>${show(values[1])}</td></tr>`)}</tbody>
    </table></div>` : html`<p class="empty">The specs do not differ, apart from name, tags, priority and metadata.</p>`)}<//>`;
}
