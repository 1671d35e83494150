// @ts-check
/** One job: its state, live, the actions that are allowed now, and tabs. */
import { get } from "../api.js";
import { Ago, JobLink, Loading, otherPhase, PhaseProgress, Status, Tabs, timeLeft } from "../components/basics.js";
import { Prose } from "../components/prose.js";
import { measured, percent, words } from "../format.js";
import { html, useEffect, useMemo, useState } from "../html.js";
import { useResource } from "../resource.js";
import { capital, detectorOf } from "../roles.js";
import { href, route } from "../router.js";
import { Actions } from "./job/actions.js";
import { LiveJob } from "./job/live.js";

/** @typedef {import("../types/api").components["schemas"]["JobDetails"]} Job */

/**
 * Tabs by the third part of the address. `shows` returns whether the tab makes sense for the job.
 * @type {Record<string, {title: string, load: () => Promise<any>, shows: (job: Job) => boolean}>}
 */
const TABS = {
  summary: { title: "Summary", load: () => import("./job/summary.js"), shows: () => true },
  curves: { title: "Curves", load: () => import("./job/curves.js"), shows: (job) => job.attempt > 0 && ["distill", "train", "quantize"].includes(job.kind) },
  verdict: { title: "Verdict", load: () => import("./job/verdict.js"), shows: (job) => job.attempt > 0 || job.kind === "compare" },
  pictures: { title: "Pictures", load: () => import("./job/pictures.js"), shows: (job) => job.attempt > 0 && job.kind !== "export" },
  files: { title: "Files and exports", load: () => import("./job/files.js"), shows: (job) => job.attempt > 0 },
  log: { title: "Log", load: () => import("./job/log.js"), shows: () => true },
};
/** Events after which the job is loaded again. */
const CHANGES = new Set(["status", "phase", "changed", "cleaned", "rewound", "cancel_requested", "pause_requested", "stop_requested", "end"]);
const END_REASONS = {
  completed: "All training steps are done.", stopped_early: "A user stopped it; what was learned until then is kept and evaluated.",
  time_limit: "The time limit was reached; what was learned until then is kept and evaluated.",
  no_improvement: "The mAP no longer rose; what was learned until then is kept and evaluated.", cancelled_by_user: "A user cancelled it.",
};

export function View() {
  const [, id, tab = "summary"] = route.value.path;
  if (!/^job_[0-9a-z]+$/.test(id)) return html`<${NoSuchJob} />`;
  return html`<${JobView} key=${id} id=${id} tab=${tab} />`;
}

/** @param {{id: string, tab: string}} props */
function JobView({ id, tab }) {
  const live = useMemo(() => new LiveJob(), [id]);
  const resource = useLiveJob(id, live);
  if (resource.error?.status === 404) return html`<${NoSuchJob} />`;
  return html`<${Loading} resource=${resource}>${(/** @type {Job} */ job) => html`<${Loaded} job=${job} live=${live} tab=${tab} reload=${resource.reload} />`}<//>`;
}

const NoSuchJob = () => html`<h1>No such job</h1><p>It may have been deleted, or belongs to another owner. <a href="#/jobs">All jobs</a></p>`;

/** Load a job and keep it current with its stream. @param {string} id @param {LiveJob} live */
function useLiveJob(id, live) {
  const resource = useResource((abort) => get(`/jobs/${id}`, {}, abort), [id], 30);
  const [progress, setProgress] = useState(/** @type {any} */ (null));
  const { data, reload } = resource;
  const gaps = live.gaps.value;
  useEffect(() => { if (gaps) reload(); }, [gaps]);
  useEffect(() => {
    if (!data || data.is_terminal) return;
    const abort = new AbortController();
    live.follow(id, abort.signal);
    return () => abort.abort();
  }, [id, data?.is_terminal]);
  useEffect(() => {
    let timer = 0;
    const stop = live.listen((type, event) => {
      if (type === "progress") setProgress(event);
      if (type === "rewound" || type === "status") setProgress(null);
      if (type === "phase") setProgress((/** @type {any} */ before) => before && { ...before, phase_fraction: null });
      if (CHANGES.has(type)) timer ||= setTimeout(() => { timer = 0; reload(); }, 300);
    });
    return () => { stop(); clearTimeout(timer); };
  }, [id]);
  const isRunning = data?.status === "running" && progress && progress.step >= (data.progress?.step ?? 0);
  return { ...resource, data: isRunning ? { ...data, progress: { ...data.progress, ...progress } } : data };
}

/** @param {{job: Job, live: LiveJob, tab: string, reload: () => void}} props */
function Loaded({ job, live, tab, reload }) {
  const related = useRelated(job);
  const shown = Object.entries(TABS).filter(([, item]) => item.shows(job));
  const items = shown.map(([name, { title }]) => ({
    name, title: name === "verdict" && !isCompared(job) ? "Results" : title, address: href(["jobs", job.id, ...(name === "summary" ? [] : [name])]),
  }));
  useEffect(() => { document.title = `${job.name ?? job.id} · Job · FRS`; }, [job.name]);
  return html`
    <${Header} job=${job} live=${live} related=${related} reload=${reload} />
    <${Tabs} items=${items} current=${tab} label="Parts of the job" />
    ${shown.some(([name]) => name === tab)
      ? html`<${TabModule} key=${tab} load=${TABS[tab].load} job=${job} live=${live} related=${related} />`
      : html`<p class="empty">${Object.hasOwn(TABS, tab) ? "This part is shown once the job has results for it." : "There is no such part of a job."} <a href=${href(["jobs", job.id])}>Summary</a></p>`}`;
}

/** Whether the report of the job has a verdict. @param {Job} job */
const isCompared = (job) => job.kind === "compare" || job.baseline_job_ids.length > 0;

/** A tab, loaded when it is first shown. @param {{load: () => Promise<any>, job: Job, live: LiveJob, related: Job[]}} props */
function TabModule({ load, ...props }) {
  const module = useResource(load, []);
  return html`<${Loading} resource=${module}>${(/** @type {any} */ { Tab }) => html`<${Tab} ...${props} />`}<//>`;
}

/** Id of the job that a detector of the spec comes from; null for another origin. @param {any} detector @returns {string | null} */
const originOf = (detector) => detector?.job ?? null;

/** Return the jobs of the same run group, and those that teacher and student come from, kept current until they have ended. @param {Job} job @returns {Job[]} */
function useRelated(job) {
  const ids = [job.parent_id, ...job.baseline_job_ids, ...job.seed_job_ids, job.comparison_job_id, originOf(job.spec.teacher), originOf(job.spec.student)].filter((id) => id !== null);
  const [jobs, setJobs] = useState(/** @type {Job[]} */ ([]));
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const load = async () => {
      const results = await Promise.all(ids.map((id) => get(`/jobs/${id}`, {}, abort.signal).catch(() => null)));
      if (abort.signal.aborted) return;
      const loaded = results.filter(Boolean);
      if (loaded.length) setJobs(loaded);
      if (loaded.length < ids.length || loaded.some((other) => !other.is_terminal)) timer = setTimeout(load, 3000);
    };
    load();
    return () => { abort.abort(); clearTimeout(timer); };
  }, [ids.join(), job.status]);
  return jobs;
}

/** @param {{job: Job, live: LiveJob, related: Job[], reload: () => void}} props */
function Header({ job, live, related, reload }) {
  return html`
    <header class="card">
      <div class="row">
        <h1 class="title">${job.name ?? job.id}</h1>
        <${Status} status=${job.status} />
        <span class="muted">${job.kind}${job.kind === "distill" ? ` with ${job.spec.method}` : ""}</span>
        ${job.tags.map((tag) => html`<a class="tag" href=${href(["jobs"], { tag })}>${tag}</a>`)}
        <span class="grow"></span>
        ${!job.is_terminal && html`<${LiveState} live=${live} />`}
      </div>
      <${Progress} job=${job} />
      <${Why} job=${job} />
      <${Related} job=${job} related=${related} />
      <${Actions} job=${job} reload=${reload} />
    </header>`;
}

/** @param {{live: LiveJob}} props */
function LiveState({ live }) {
  const state = live.state.value;
  return html`<span role="status" class=${state === "live" ? "good" : "warn"}>
    <span aria-hidden="true">${state === "live" ? "●" : "○"}</span> ${state}</span>`;
}

/** @param {{job: Job}} props */
function Progress({ job }) {
  const { progress } = job;
  if (job.status === "queued" && job.queue_position) return html`<p>Position ${job.queue_position} in the queue.</p>`;
  if (job.status === "running" && !progress) return job.phase ? html`<p role="status">Now: ${words(job.phase)}</p>` : null;
  if (!progress || !["running", "paused", "failed", "cancelled"].includes(job.status)) return null;
  const isRunning = job.status === "running";
  const phase = isRunning && otherPhase(job);
  const facts = [
    `step ${progress.step} of ${progress.steps}, epoch ${progress.epoch} of ${progress.epochs}`,
    isRunning && timeLeft(job),
    isRunning && !phase && progress.images_per_second && `${measured(progress.images_per_second)} images/s`,
  ].filter(Boolean);
  return html`
    ${progress.steps > 0 && html`<div class="row">
      <progress class="wide" max="1" value=${progress.fraction} aria-label="Progress of the training"></progress>
      <strong>${percent(progress.fraction)}</strong> <span>of the training · ${facts.join(" · ")}</span>
    </div>`}
    ${phase && html`<p role="status">Now: <${PhaseProgress} job=${job} /></p>`}
    ${progress.stale && isRunning && html`<p class="warn">The worker has not reported for longer than its lease: another worker will take the job.</p>`}`;
}

/** Why the job waits or why it ended, with the next step. @param {{job: Job}} props */
function Why({ job }) {
  if (job.error) return html`<div class="problem"><strong><${Prose} text=${job.error.message} /></strong> <${Prose} text=${job.error.hint} /> <small><code>${job.error.code}</code></small></div>`;
  const request = job.requested_action;
  if (job.status_reason) return html`<p><strong>Waits:</strong> <${Prose} text=${job.status_reason.message} /> <span class="muted"><${Prose} text=${job.status_reason.hint} /> Since <${Ago} at=${job.status_reason.since} />.</span> <a href="#/">Queue and workers</a></p>`;
  if (request && !job.is_terminal && job.status === "running") return html`<p class="warn" role="status">${request.by ?? "A user"} asked to ${request.action} it <${Ago} at=${request.at} />; the worker does so at its next step.</p>`;
  if (job.status === "paused") return html`<p>Paused${request?.by ? ` by ${request.by}` : ""}; it holds no worker and continues from its checkpoint on resume.</p>`;
  const reason = END_REASONS[/** @type {keyof typeof END_REASONS} */ (job.end_reason)];
  if (job.is_terminal && job.end_reason && job.end_reason !== "completed") return html`<p>${reason ?? `It ended: ${words(job.end_reason)}.`}</p>`;
  return null;
}

/** Links to the run group. @param {{job: Job, related: Job[]}} props */
function Related({ job, related }) {
  const teacher = originOf(job.spec.teacher), student = originOf(job.spec.student);
  const groups = /** @type {[string, string[]][]} */ ([
    ["Part of", job.parent_id ? [job.parent_id] : []],
    [job.baseline_job_ids.length > 1 ? "Baselines" : "Baseline", job.baseline_job_ids],
    ["Other seeds", job.seed_job_ids],
    ["Comparison", job.comparison_job_id ? [job.comparison_job_id] : []],
    ["Teacher", teacher ? [teacher] : []],
    [capital(detectorOf(job)), student ? [student] : []],
  ]).filter(([, ids]) => ids.length);
  if (!groups.length) return null;
  return html`<div class="row">${groups.map(([title, ids]) => html`
    <span><span class="muted">${title}:</span> ${ids.map((id, index) => {
      const other = related.find((item) => item.id === id);
      return html`${index ? ", " : ""}<${JobLink} id=${id} name=${other?.name} />${other && html` <${Status} status=${other.status} />${other.status === "running" && other.progress?.steps ? ` ${percent(other.progress.fraction)}` : ""}`}`;
    })}</span>`)}</div>`;
}
