// @ts-check
/** Jobs side by side: what differs in their specs, their curves on a common grid of steps, and their evaluations. */
import { get } from "../api.js";
import { JobLink, JobProgress, Loading, Status } from "../components/basics.js";
import { Table } from "../components/table.js";
import { count, duration, between, milliseconds, NONE, number, percent, points, words } from "../format.js";
import { html, useState } from "../html.js";
import { MAX_COMPARED } from "../limits.js";
import { useResource } from "../resource.js";
import { go, href, route, setQuery } from "../router.js";
import { Curves } from "./compare/curves.js";

/** @typedef {import("../types/api").components["schemas"]["api__compare__schemas__Comparison"]} Comparison */
/** @typedef {import("../types/api").components["schemas"]["ComparedJob"]} ComparedJob */
/** @typedef {import("../types/api").components["schemas"]["JobScores"]} JobScores */
/** @typedef {import("../types/api").components["schemas"]["Job"]} Job */

/** The smallest number of points that the API accepts; the overview needs the names and the last values only. */
const FEW_POINTS = 32;
const METRICS = { bbox_mAP: "mAP", bbox_mAP_50: "mAP50", bbox_mAP_75: "mAP75", bbox_mAP_s: "mAP, small", bbox_mAP_m: "mAP, medium", bbox_mAP_l: "mAP, large" };

export function View() {
  const ids = (route.value.query.jobs ?? "").split(",").filter(Boolean);
  const isChoosing = ids.length < 2 || route.value.query.choose !== undefined;
  return html`
    <div class="row"><h1>Compare jobs</h1><span class="grow"></span>
      ${!isChoosing && html`<a class="button" href=${href(["compare"], { ...route.value.query, choose: "1" })}>Choose other jobs</a>`}</div>
    ${isChoosing ? html`<${Chooser} chosen=${ids} />` : html`<${SideBySide} key=${ids.join(",")} ids=${ids} />`}`;
}

/** The newest jobs, to choose from. @param {{chosen: string[]}} props */
function Chooser({ chosen }) {
  const [selected, setSelected] = useState(new Set(chosen));
  const jobs = useResource(async (signal) => /** @type {Job[]} */ ((await get("jobs", { kind: ["distill", "train", "quantize", "evaluate"], limit: 100 }, signal)).data), []);
  const columns = [
    { name: "name", title: "Name", sort: (/** @type {Job} */ job) => job.name, cell: (/** @type {Job} */ job) => html`<${JobLink} id=${job.id} name=${job.name} />` },
    { name: "kind", title: "Kind", sort: (/** @type {Job} */ job) => job.kind, cell: (/** @type {Job} */ job) => (job.kind === "distill" ? `distill (${job.spec.method})` : job.kind) },
    { name: "dataset", title: "Data set", sort: (/** @type {Job} */ job) => job.spec.dataset, cell: (/** @type {Job} */ job) => job.spec.dataset },
    { name: "status", title: "Status", sort: (/** @type {Job} */ job) => job.status, cell: (/** @type {Job} */ job) => html`<${Status} status=${job.status} />` },
    { name: "id", title: "Id", cell: (/** @type {Job} */ job) => html`<code>${job.id}</code>` },
  ];
  const compare = () => go(["compare"], { ...route.value.query, jobs: [...selected].join(","), choose: null });
  return html`
    <p>Choose 2 to ${MAX_COMPARED} of the newest jobs, or select jobs in the <a href="#/jobs">list of jobs</a>, which has filters.</p>
    <div class="row"><button class="primary" disabled=${selected.size < 2 || selected.size > MAX_COMPARED} onClick=${compare}>Compare ${selected.size} jobs</button></div>
    <section class="card"><${Loading} resource=${jobs}>${(/** @type {Job[]} */ rows) => html`
      <${Table} label="Jobs to compare" columns=${columns} rows=${rows} rowKey=${(/** @type {Job} */ job) => job.id} selected=${selected} onSelect=${setSelected}
        order=${route.value.query.order ?? ""} onOrder=${(/** @type {string} */ order) => setQuery({ order })} empty=${html`There are no jobs yet. <a href="#/new">Start one</a>`} />`}<//></section>`;
}

/** @param {{ids: string[]}} props */
function SideBySide({ ids }) {
  const [isLive, setLive] = useState(false);
  const comparison = useResource(async (signal) => {
    /** @type {Comparison} */
    const answer = await get("compare", { jobs: ids.join(","), max_points: FEW_POINTS }, signal);
    setLive(answer.jobs.some((job) => job.finished_at === null));
    return answer;
  }, [isLive], isLive ? 10 : 0);
  return html`<${Loading} resource=${comparison}>${(/** @type {Comparison} */ data) => html`
    <${Section} title="Jobs" jobs=${data.jobs} rows=${factRows(data.jobs)} canRemove />
    <${Section} title="Evaluation" jobs=${data.jobs} rows=${scoreRows(data)}
      note=${`mAP in points on the validation split, of the last evaluation${data.comparable ? "; ★ marks the best of a row. A difference is not evidence of an improvement: that is the verdict of a job with its baseline." : ". The jobs were evaluated on different data sets: their numbers cannot be compared, and none is marked as best."}`}
      empty="No job has been evaluated yet." />
    <${Section} title="Differences of the specs" jobs=${data.jobs} rows=${data.differences.map((item) => ({ name: html`<code>${item.path}</code>`, cells: item.values.map(specValue) }))} empty="The specs are the same." />
    <${Curves} ids=${ids} jobs=${data.jobs} keys=${data.curves.map((curve) => curve.key)} isLive=${isLive} />
    <${Section} title="Last values of the metrics" jobs=${data.jobs} isFolded rows=${data.curves.map((curve) => ({ name: html`<code>${curve.key}</code>`, cells: curve.y.map((values) => number(values.findLast((value) => value !== null))) }))}
      empty="No job has written metrics yet." />`}<//>`;
}

/** @param {ComparedJob[]} jobs @returns {Row[]} */
function factRows(jobs) {
  /** @type {[string, (job: ComparedJob) => any][]} */
  const facts = [
    ["Status", (job) => html`<${Status} status=${job.status} />${job.end_reason && job.end_reason !== "completed" ? ` ${words(job.end_reason)}` : ""}`],
    ["Progress", (job) => (!job.progress?.steps ? NONE : job.finished_at ? percent(job.progress.fraction) : html`<${JobProgress} job=${job} />`)],
    ["Kind", (job) => job.kind],
    ["Method", (job) => job.method ?? NONE],
    ["mAP", (job) => points(job.mAP)],
    ["Parameters", (job) => count(job.parameters)],
    ["FLOPs for one image", (job) => count(job.flops)],
    ["Latency in the trainer", (job) => milliseconds(job.latency_ms)],
    ["Run time", (job) => duration(between(job.started_at, job.finished_at))],
    ["Attempts", (job) => number(job.attempt)],
  ];
  return facts.map(([name, cell]) => ({ name, cells: jobs.map(cell) }));
}

/** @param {Comparison} comparison @returns {Row[]} */
function scoreRows({ jobs, evaluations }) {
  if (!evaluations.length) return [];
  const scores = jobs.map((job) => evaluations.find((item) => item.job_id === job.id));
  const classes = [...new Set(evaluations.flatMap((item) => Object.keys(item.per_class)))];
  return [
    { name: "Step", cells: scores.map((item) => (item ? `${number(item.step)}${item.last ? "" : " (newest so far)"}` : NONE)) },
    ...Object.entries(METRICS).map(([key, name]) => ({ name, cells: scores.map((item) => score(item?.metrics[key], item?.best.includes(key))) })),
    ...classes.map((key) => ({ name: html`<span class="muted">class</span> ${key}`, cells: scores.map((item) => score(item?.per_class[key], item?.best_classes.includes(key))) })),
  ];
}

/** @param {number | null | undefined} value @param {boolean | undefined} isBest */
const score = (value, isBest) => (isBest ? html`<strong>${points(value)} <span aria-hidden="true">★</span><span class="visually-hidden">best</span></strong>` : points(value));

/** @param {any} value */
const specValue = (value) => (value === null ? NONE : html`<code>${typeof value === "string" ? value : JSON.stringify(value)}</code>`);

/** @typedef {{name: any, cells: any[]}} Row */

/**
 * A table with one column per job.
 * @param {{title: string, jobs: ComparedJob[], rows: Row[], note?: string, empty?: string, canRemove?: boolean, isFolded?: boolean}} props
 */
function Section({ title, jobs, rows, note, empty, canRemove, isFolded }) {
  const body = rows.length ? html`
    <div class="scroll" tabindex="0" role="region" aria-label=${title}><table>
      <caption class="visually-hidden">${title}</caption>
      <thead><tr><td></td>${jobs.map((job) => html`<th key=${job.id} scope="col"><${JobLink} id=${job.id} name=${job.name} />${canRemove && jobs.length > 2 && html`<${Remove} job=${job} jobs=${jobs} />`}</th>`)}</tr></thead>
      <tbody>${rows.map((row, index) => html`<tr key=${index}><th scope="row" style=${{ minWidth: "9rem" }}>${row.name}</th>${row.cells.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody>
    </table></div>
    ${note && html`<p class="hint">${note}</p>`}` : html`<p class="empty">${empty}</p>`;
  return html`<section class="card">${isFolded ? html`<details><summary>${title}</summary>${body}</details>` : html`<h2>${title}</h2>${body}`}</section>`;
}

/** @param {{job: ComparedJob, jobs: ComparedJob[]}} props */
function Remove({ job, jobs }) {
  const others = jobs.filter((item) => item !== job).map((item) => item.id).join(",");
  return html` <a href=${href(["compare"], { ...route.value.query, jobs: others })} aria-label=${`Remove ${job.name ?? job.id} from the comparison`} title="Remove from the comparison">✕</a>`;
}
