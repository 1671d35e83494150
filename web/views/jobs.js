// @ts-check
/** The jobs, with filters, groups and actions in bulk. With an id in the address, that job. */
import { get } from "../api.js";
import { Ago, JobLink, JobProgress, Loading, Status } from "../components/basics.js";
import { Table } from "../components/table.js";
import { between, dayStart, duration, number, plural, words } from "../format.js";
import { Fragment, html, useMemo, useRef, useState } from "../html.js";
import { useResource } from "../resource.js";
import { href, route, setQuery } from "../router.js";
import { View as JobView } from "./job.js";
import { BulkActions } from "./jobs/bulk_actions.js";
import { Filters, STATUSES } from "./jobs/filters.js";

/** @typedef {import("../types/api").components["schemas"]["Job"]} Job */
/** @typedef {import("../types/api").components["schemas"]["Dataset"]} Dataset */

const PAGE = 100;
const REFRESH_SECONDS = 5;

export function View() {
  const id = route.value.path[1];
  return id ? html`<${JobView} key=${id} />` : html`<${Jobs} />`;
}

function Jobs() {
  const { status, kind, name, tag, dataset, after, before } = route.value.query;
  const datasets = useResource(async (signal) => /** @type {Dataset[]} */ ((await get("datasets", { limit: 200 }, signal)).data), []);
  const query = {
    status: status?.split(",").filter((item) => STATUSES.includes(item)), kind, name, tag, dataset,
    created_after: dayStart(after), created_before: dayStart(before),
  };
  return html`
    <div class="row"><h1>Jobs</h1><span class="grow"></span><a class="button primary" href="#/new">New job</a></div>
    <${Filters} datasets=${datasets.data ?? []} />
    <${List} key=${JSON.stringify(query)} query=${query} datasets=${datasets.data ?? []} />`;
}

/**
 * Return the newest jobs that the filters admit, page by page.
 * @param {import("../api.js").Query} query @param {{current: number}} pages @param {AbortSignal} signal
 */
async function loadPages(query, pages, signal) {
  /** @type {Job[]} */
  const jobs = [];
  let cursor = null;
  for (let page = 0; page < pages.current; page++) {
    const answer = await get("jobs", { ...query, limit: PAGE, cursor }, signal);
    jobs.push(...answer.data);
    cursor = answer.next_cursor;
    if (!cursor) break;
  }
  return { jobs, hasMore: cursor !== null };
}

/** @param {{query: import("../api.js").Query, datasets: Dataset[]}} props */
function List({ query, datasets }) {
  const pages = useRef(1);
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const resource = useResource((signal) => loadPages(query, pages, signal), [], REFRESH_SECONDS * pages.current);
  const more = () => { pages.current += 1; resource.reload(); };
  return html`<${Loading} resource=${resource}>${(/** @type {{jobs: Job[], hasMore: boolean}} */ { jobs, hasMore }) => html`
    <${BulkActions} jobs=${jobs.filter((job) => selected.has(job.id))} onDone=${resource.reload} onClear=${() => setSelected(new Set())} />
    <${Groups} jobs=${jobs} datasets=${datasets} selected=${selected} onSelect=${setSelected} isFiltered=${Object.values(query).some(Boolean)} />
    <div class="row">
      ${hasMore && html`<button disabled=${resource.loading || jobs.length < PAGE * pages.current} onClick=${more}>Load ${PAGE} more</button>`}
      <span class="hint" role="status">${hasMore ? `The newest ${plural(jobs.length, "job")} are loaded; there are older ones.` : `${plural(jobs.length, "job")} in all.`}</span>
    </div>`}<//>`;
}

/**
 * The loaded jobs, in one table or one for each group.
 * @param {{jobs: Job[], datasets: Dataset[], selected: Set<string>, onSelect: (selected: Set<string>) => void, isFiltered: boolean}} props
 */
function Groups({ jobs, datasets, selected, onSelect, isFiltered }) {
  const { group = "", order = "-created" } = route.value.query;
  const datasetNames = useMemo(() => new Map(datasets.map((item) => [item.id, item.name])), [datasets]);
  const columns = useMemo(() => jobColumns(datasetNames), [datasetNames]);
  const groups = groupJobs(jobs, group, datasetNames);
  if (!jobs.length) return html`<section class="card"><${Nothing} isFiltered=${isFiltered} /></section>`;
  return groups.map(({ key, title, rows }) => html`
    <section class="card" key=${key}>
      ${title && html`<h2>${title} <span class="muted">${summary(rows)}</span></h2>`}
      <${Table} label=${title ? `Jobs of one ${group === "dataset" ? "data set" : "run group"}` : "Jobs"} columns=${columns} rows=${rows}
        rowKey=${(/** @type {Job} */ job) => job.id} order=${order} onOrder=${(/** @type {string} */ value) => setQuery({ order: value })}
        selected=${selected} onSelect=${(/** @type {Set<string>} */ next) => onSelect(mergeSelection(selected, next, rows))} />
    </section>`);
}

/** Return the selection of all tables after a change in the table with `rows`. @param {Set<string>} before @param {Set<string>} next @param {Job[]} rows */
function mergeSelection(before, next, rows) {
  const own = new Set(rows.map((job) => job.id));
  return new Set([...[...before].filter((id) => !own.has(id)), ...[...next].filter((id) => own.has(id))]);
}

/** @param {{isFiltered: boolean}} props */
function Nothing({ isFiltered }) {
  if (isFiltered) return html`<p class="empty">No job matches these filters. <a href="#/jobs">Clear the filters</a></p>`;
  return html`<p class="empty">There are no jobs yet. <a href="#/new">Start one</a>, or choose a <a href="#/recipes">recipe</a>.</p>`;
}

/** @param {Job[]} jobs @param {string} group @param {Map<string, string>} datasetNames @returns {{key: string, title: any, rows: Job[]}[]} */
function groupJobs(jobs, group, datasetNames) {
  if (group !== "dataset" && group !== "run") return [{ key: "all", title: null, rows: jobs }];
  /** @type {Map<string, Job[]>} */
  const rows = new Map();
  for (const job of jobs) {
    const key = group === "dataset" ? datasetNames.get(job.spec.dataset) ?? job.spec.dataset : job.parent_id ?? job.id;
    const others = rows.get(key);
    if (others) others.push(job);
    else rows.set(key, [job]);
  }
  if (group === "dataset") return [...rows].map(([key, items]) => ({ key, rows: items, title: html`<a href=${href(["datasets", key])}>${key}</a>` }));
  const singles = [...rows.values()].filter((items) => items.length === 1).flat();
  const groups = [...rows].filter(([, items]) => items.length > 1).map(([key, items]) => ({
    key, rows: items, title: html`<${JobLink} id=${key} name=${items.find((job) => job.id === key)?.name} />`,
  }));
  return singles.length ? [...groups, { key: "singles", rows: singles, title: "Jobs on their own" }] : groups;
}

/** "4 jobs: 3 succeeded, 1 failed". @param {Job[]} jobs */
function summary(jobs) {
  const counts = STATUSES.map((status) => [jobs.filter((job) => job.status === status).length, words(status)]).filter(([count]) => count);
  return `${plural(jobs.length, "job")}: ${counts.map(([count, status]) => `${count} ${status}`).join(", ")}`;
}

/** @param {Map<string, string>} datasetNames */
function jobColumns(datasetNames) {
  const dataset = (/** @type {Job} */ job) => datasetNames.get(job.spec.dataset) ?? job.spec.dataset;
  return [
    { name: "name", title: "Name", sort: (/** @type {Job} */ job) => job.name ?? job.id, cell: (/** @type {Job} */ job) => html`<${NameCell} job=${job} />` },
    { name: "status", title: "Status", sort: (/** @type {Job} */ job) => STATUSES.indexOf(job.status), cell: (/** @type {Job} */ job) => html`<${StatusCell} job=${job} />` },
    { name: "progress", title: "Progress", sort: (/** @type {Job} */ job) => job.progress?.fraction, cell: (/** @type {Job} */ job) => (job.progress?.steps || job.phase ? html`<${JobProgress} job=${job} />` : "") },
    { name: "kind", title: "Kind", sort: kindAndMethod, cell: kindAndMethod },
    { name: "dataset", title: "Data set", sort: dataset, cell: dataset },
    { name: "owner", title: "Owner", sort: (/** @type {Job} */ job) => job.owner, cell: (/** @type {Job} */ job) => job.owner },
    { name: "priority", title: "Priority", numeric: true, sort: (/** @type {Job} */ job) => job.priority, cell: (/** @type {Job} */ job) => number(job.priority) },
    { name: "created", title: "Submitted", sort: (/** @type {Job} */ job) => Date.parse(job.created_at), cell: (/** @type {Job} */ job) => html`<${Ago} at=${job.created_at} />` },
    { name: "runtime", title: "Run time", numeric: true, sort: runtime, cell: (/** @type {Job} */ job) => duration(runtime(job)) },
  ];
}

const kindAndMethod = (/** @type {Job} */ job) => (job.kind === "distill" ? `distill (${job.spec.method})` : job.kind);

const runtime = (/** @type {Job} */ job) => between(job.started_at, job.finished_at);

/** @param {{job: Job}} props */
const NameCell = ({ job }) => html`<div style=${{ minWidth: "10rem" }}>
  <${JobLink} id=${job.id} name=${job.name} />
  ${job.tags.map((tag) => html` <a class="tag" href=${href(["jobs"], { ...route.value.query, tag })}>${tag}</a>`)}</div>`;

/** @param {{job: Job}} props */
function StatusCell({ job }) {
  const reason = job.status_reason ? job.status_reason : job.error;
  const place = job.queue_position ? ` at place ${number(job.queue_position)}` : "";
  return html`<${Fragment}>
    <${Status} status=${job.status} />${place}
    ${job.progress?.stale && html`<div class="warn">The worker does not respond.</div>`}
    ${reason && html`<div class="hint" title=${`${reason.message} ${reason.hint}`}>${words(reason.code)}</div>`}
  <//>`;
}
