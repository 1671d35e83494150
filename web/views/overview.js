// @ts-check
/** What runs, what waits and why, the workers, and the disk space. It refreshes by itself. */
import { get } from "../api.js";
import { Ago, JobLink, JobProgress, Loading, ProgressBar } from "../components/basics.js";
import { Prose } from "../components/prose.js";
import { Table } from "../components/table.js";
import { between, bytes, duration, number, plural, time, words } from "../format.js";
import { html, useRef } from "../html.js";
import { useResource } from "../resource.js";
import { href } from "../router.js";

/** @typedef {import("../types/api").components["schemas"]["Queue"]} Queue */
/** @typedef {import("../types/api").components["schemas"]["QueuedJob"]} QueuedJob */
/** @typedef {import("../types/api").components["schemas"]["RunningJob"]} RunningJob */
/** @typedef {import("../types/api").components["schemas"]["Worker"]} Worker */
/** @typedef {import("../types/api").components["schemas"]["Gpu"]} Gpu */
/** @typedef {import("../types/api").components["schemas"]["Usage"]} Usage */
/** @typedef {import("../types/api").components["schemas"]["Disk"]} Disk */

const PAGE = 100;
/** Jobs in a row that fail on a worker before the page says so; the command line has the same number. */
const SUSPECT_FAILURES = 3;
/** Style of the names of jobs, which should not break within words. */
const NAME = { minWidth: "9rem" };

export function View() {
  const pages = useRef(1);
  const queue = useResource((signal) => loadQueue(pages.current, signal), [], 3);
  const workers = useResource(async (signal) => /** @type {Worker[]} */ ((await get("workers", {}, signal)).data), [], 5);
  const usage = useResource((signal) => /** @type {Promise<Usage>} */ (get("usage", {}, signal)), [], 30);
  return html`
    <h1>Overview</h1>
    <${Loading} resource=${queue}>${(/** @type {Queue} */ data) => html`
      <${Numbers} queue=${data} />
      <${Running} jobs=${data.running} count=${data.counts.running} />
      <${Waiting} queue=${data} onMore=${() => { pages.current += 1; queue.reload(); }} />`}<//>
    <section class="card"><h2>Workers</h2><${Loading} resource=${workers}>${(/** @type {Worker[]} */ rows) => html`<${Workers} rows=${rows} running=${queue.data?.running ?? []} />`}<//></section>
    <section class="card"><h2>Disk space</h2><${Loading} resource=${usage}>${(/** @type {Usage} */ data) => html`<${DiskSpace} usage=${data} />`}<//></section>`;
}

/** Return the running jobs and the first pages of the queue. @param {number} pages @param {AbortSignal} signal @returns {Promise<Queue>} */
async function loadQueue(pages, signal) {
  /** @type {Queue} */
  const first = await get("queue", { limit: PAGE }, signal);
  let { data, next_cursor } = first;
  for (let page = 1; page < pages && next_cursor; page++) {
    const next = await get("queue", { limit: PAGE, cursor: next_cursor }, signal);
    data = [...data, ...next.data];
    next_cursor = next.next_cursor;
  }
  return { ...first, data, next_cursor };
}

/** @param {{queue: Queue}} props */
function Numbers({ queue }) {
  const { counts } = queue;
  const idle = counts.queued + counts.running === 0;
  return html`
    <div class="grid narrow">
      <${NumberCard} title="Running" value=${number(counts.running)} address=${href(["jobs"], { status: "running" })} />
      <${NumberCard} title="Queued" value=${number(counts.queued)} address=${href(["jobs"], { status: "queued" })} />
      <${NumberCard} title="Paused" value=${number(counts.paused)} address=${href(["jobs"], { status: "paused" })} />
      <div class="card">
        <div class="muted">Until the queue is empty</div>
        ${idle
          ? html`<div class="number">Empty now</div><div class="hint"><a href="#/datasets">Add a data set</a>, <a href="#/new?recipe=edge_teacher">train a teacher</a> on it, then distil a student from it.</div>`
          : queue.empty_at
            ? html`<div class="number">${duration(Math.max(0, -(between(queue.empty_at) ?? 0)))}</div><div class="hint">at about ${time(queue.empty_at)}${queue.empty_at_reason && html`. Some jobs are left out: <${Prose} text=${queue.empty_at_reason} />`}</div>`
            : html`<div class="number">No estimate</div><div class="hint"><${Prose} text=${queue.empty_at_reason} /></div>`}
      </div>
    </div>`;
}

/** @param {{title: string, value: string, address: string}} props */
const NumberCard = ({ title, value, address }) => html`
  <div class="card"><div class="muted">${title}</div><div class="number">${value}</div><a class="hint" href=${address}>Show these jobs</a></div>`;

/** @param {{jobs: RunningJob[], count: number}} props */
function Running({ jobs, count }) {
  const columns = [
    { name: "job", title: "Job", cell: (/** @type {RunningJob} */ job) => html`<div style=${NAME}><${JobLink} id=${job.job_id} name=${job.name} /></div>` },
    { name: "progress", title: "Progress", cell: (/** @type {RunningJob} */ job) => html`<${RunningProgress} job=${job} />` },
    { name: "devices", title: "GPUs", cell: (/** @type {RunningJob} */ job) => gpusRequested(job) },
    { name: "owner", title: "Owner", cell: (/** @type {RunningJob} */ job) => job.owner },
    { name: "attempt", title: "Attempt", numeric: true, cell: (/** @type {RunningJob} */ job) => job.attempt },
    { name: "started", title: "Started", cell: (/** @type {RunningJob} */ job) => html`<${Ago} at=${job.started_at} />` },
  ];
  return html`
    <section class="card"><h2>Running</h2>
      <${Table} label="Running jobs" columns=${columns} rows=${jobs} rowKey=${(/** @type {RunningJob} */ job) => job.job_id} empty="No job runs now." />
      ${count > jobs.length && html`<p class="hint">${plural(count - jobs.length, "running job")} of other owners.</p>`}
    </section>`;
}

/** @param {{job: RunningJob}} props */
function RunningProgress({ job }) {
  const { progress } = job;
  const steps = progress?.steps ? `epoch ${progress.epoch} of ${progress.epochs}, step ${number(progress.step)} of ${number(progress.steps)}` : "";
  return html`
    <${JobProgress} job=${job} />
    ${steps && html`<div class="hint">${steps}</div>`}
    ${progress?.stale && html`<div class="warn">The worker does not respond.</div>`}`;
}

/** @param {{devices: number | null, nodes: number}} job */
function gpusRequested({ devices, nodes }) {
  const count = devices === null ? "1 if any" : devices === 0 ? "CPU" : number(devices);
  return nodes > 1 ? `${count}, on each of ${nodes} hosts` : count;
}

/** @param {{queue: Queue, onMore: () => void}} props */
function Waiting({ queue, onMore }) {
  const columns = [
    { name: "position", title: "Place", numeric: true, cell: (/** @type {QueuedJob} */ job) => number(job.position) },
    { name: "job", title: "Job", cell: (/** @type {QueuedJob} */ job) => html`<div style=${NAME}><${JobLink} id=${job.job_id} name=${job.name} /></div>` },
    { name: "reason", title: "Waits for", cell: (/** @type {QueuedJob} */ job) => html`<${Reason} reason=${job.status_reason} />` },
    { name: "devices", title: "GPUs", cell: (/** @type {QueuedJob} */ job) => gpusRequested(job) },
    { name: "priority", title: "Priority", numeric: true, cell: (/** @type {QueuedJob} */ job) => job.priority },
    { name: "owner", title: "Owner", cell: (/** @type {QueuedJob} */ job) => job.owner },
    { name: "created", title: "Submitted", cell: (/** @type {QueuedJob} */ job) => html`<${Ago} at=${job.created_at} />` },
  ];
  const hidden = queue.counts.queued - queue.data.length;
  return html`
    <section class="card"><h2>Queue</h2>
      <${Table} label="Queued jobs in the order in which workers take them" columns=${columns} rows=${queue.data}
        rowKey=${(/** @type {QueuedJob} */ job) => job.job_id} empty=${html`No job waits. <a href="#/new">Start a job</a>`} />
      ${queue.next_cursor
        ? html`<div class="row"><button onClick=${onMore}>Show ${PAGE} more</button><span class="hint">${number(queue.data.length)} of ${number(queue.counts.queued)} queued jobs</span></div>`
        : hidden > 0 && html`<p class="hint">${plural(hidden, "queued job")} of other owners.</p>`}
    </section>`;
}

/** Reasons that pass by themselves; the others are shown in full, because somebody has to act. */
const PATIENT = ["waiting_for_worker", "waiting_for_runs", "waiting_for_detector"];

/** @param {{reason: {code: string, message: string, hint: string, since: string}}} props */
const Reason = ({ reason }) => html`
  <details open=${!PATIENT.includes(reason.code)}><summary>${words(reason.code.replace(/^waiting_for_/, ""))} <span class="muted">for ${duration(between(reason.since))}</span></summary>
    <div class="hint"><${Prose} text=${`${reason.message} ${reason.hint}`} /></div></details>`;

/** @param {{rows: Worker[], running: RunningJob[]}} props `running` has the names of the jobs. */
function Workers({ rows, running }) {
  const jobName = (/** @type {string} */ id) => running.find((job) => job.job_id === id)?.name;
  const columns = [
    { name: "name", title: "Worker", cell: (/** @type {Worker} */ row) => html`${row.name ?? row.id}<div class="hint">host ${row.host}${row.nodes > 1 && `, first of ${row.nodes} hosts`}, version ${row.version}</div>` },
    { name: "slots", title: "Slots", cell: (/** @type {Worker} */ row) => `${row.running} of ${row.concurrency} in use` },
    { name: "gpus", title: "GPUs", cell: (/** @type {Worker} */ row) => (row.gpus.length ? row.gpus.map((gpu) => html`<${GpuLine} gpu=${gpu} />`) : "none, runs on the CPU") },
    { name: "jobs", title: "Jobs", cell: (/** @type {Worker} */ row) => (row.job_ids.length ? row.job_ids.map((id) => html`<div key=${id}><${JobLink} id=${id} name=${jobName(id)} /></div>`) : "none") },
    { name: "seen", title: "Heartbeat", cell: (/** @type {Worker} */ row) => html`<${Ago} at=${row.seen_at} />` },
    { name: "state", title: "State", cell: (/** @type {Worker} */ row) => html`<${WorkerState} worker=${row} />` },
  ];
  return html`<${Table} label="Workers" columns=${columns} rows=${rows} rowKey=${(/** @type {Worker} */ row) => row.id}
    empty=${html`No worker has sent a heartbeat in the last minute, so queued jobs wait. Start one with <code>frs up</code> or <code>python -m worker</code>.`} />`;
}

/** @param {{gpu: Gpu}} props */
function GpuLine({ gpu }) {
  const name = gpu.name ?? `GPU ${gpu.index}`;
  const load = gpu.utilization === null || gpu.utilization === undefined ? "" : `, ${Math.round(gpu.utilization)} % busy`;
  if (!gpu.memory_total || gpu.memory_used === null || gpu.memory_used === undefined) return html`<div>${name}${load}</div>`;
  return html`<div>${name}${load}<br /><${ProgressBar} value=${gpu.memory_used / gpu.memory_total} label=${`Memory of ${name}`}
    text=${`${bytes(gpu.memory_used)} of ${bytes(gpu.memory_total)}`} /></div>`;
}

/** @param {{worker: Worker}} props */
function WorkerState({ worker }) {
  const name = worker.name ?? worker.host;
  return html`
    ${worker.draining ? html`<div class="warn">Shuts down: takes no new jobs</div>` : html`<div>${worker.running < worker.concurrency ? "Ready" : "Busy"}</div>`}
    ${worker.failures_in_a_row >= SUSPECT_FAILURES && html`<div class="bad">Failed on ${worker.failures_in_a_row} jobs in a row: check its log, driver and disk.</div>`}
    ${worker.missing.map((text) => html`<div class="warn">${name} ${text}</div>`)}`;
}

/** @param {{usage: Usage}} props */
function DiskSpace({ usage }) {
  return html`
    <div class="grid">${usage.disks.map((disk) => html`<${DiskFacts} disk=${disk} />`)}</div>
    <p class="hint"><a href=${href(["keys", "usage"])}>Stored files by owner</a>. Remove old jobs, checkpoints and metrics with <code>frs clean</code>, or select ended jobs in the <a href=${href(["jobs"], { status: "succeeded,failed,cancelled" })}>list of jobs</a>.</p>`;
}

/** @param {{disk: Disk}} props */
function DiskFacts({ disk }) {
  const low = disk.free < disk.floor;
  const consequence = disk.name === "uploads" ? "Uploads are refused" : "Jobs wait";
  return html`<div>
    <h3>${words(disk.name)}</h3>
    <${ProgressBar} value=${1 - disk.free / disk.total} label=${`Used space of the folder ${disk.name}`} text=${`${bytes(disk.free)} of ${bytes(disk.total)} free`} />
    <div class=${low ? "bad" : "hint"}>${low ? "Too little space. " : ""}${consequence} below ${bytes(disk.floor)}.</div>
  </div>`;
}
