// @ts-check
/** The health report of a data set: what was read, what training does not use, counts, and problems by file. */
import { get } from "../../api.js";
import { Loading } from "../../components/basics.js";
import { Prose } from "../../components/prose.js";
import { Chart } from "../../components/chart.js";
import { Table } from "../../components/table.js";
import { NONE, number, percent, plural, words } from "../../format.js";
import { html, useMemo } from "../../html.js";
import { useResource } from "../../resource.js";
import { route, setQuery } from "../../router.js";

/** @typedef {import("../../types/api").components["schemas"]["Dataset"]} Dataset */
/** @typedef {import("../../types/api").components["schemas"]["DatasetCheck"]} Check */
/** @typedef {import("../../types/api").components["schemas"]["frs__dataset__report__Report"]} Report */
/** @typedef {import("../../types/api").components["schemas"]["SplitIssue"]} Issue */

const MAX_BARS = 60;
const SPLITS = /** @type {const} */ ([["train", "Training"], ["val", "Validation"]]);

/** @param {{dataset: Dataset}} props */
export function Health({ dataset }) {
  const check = useResource((signal) => get(`/datasets/${dataset.id}/check`, {}, signal), [dataset.id, dataset.status]);
  if (dataset.status === "checking") return html`<p role="status">The service is still checking the files. This page continues by itself.</p>`;
  return html`<${Loading} resource=${check}>${(/** @type {Check} */ check) => html`
    <${Summary} check=${check} />
    <div class="grid">
      <section class="card"><h2>What was read</h2><${SplitTable} check=${check} /></section>
      <section class="card"><h2>What training leaves out</h2><${LeftOut} check=${check} /></section>
    </div>
    <div class="grid">
      <section class="card"><h2>Boxes per class</h2><${ClassChart} check=${check} /></section>
      <section class="card"><h2>Boxes per size</h2><${SizeChart} check=${check} /></section>
    </div>
    ${check.issues.length > 0 && html`<${Problems} check=${check} />`}`}<//>`;
}

/** Whether jobs accept the data set. @param {{check: Check}} props */
function Summary({ check }) {
  const invalid = Math.max(check.train?.invalid_fraction ?? 0, check.val?.invalid_fraction ?? 0);
  const unusable = !check.train || !check.val;
  return html`<p>${check.status === "ready"
    ? "All files and boxes were checked. Jobs accept the data set."
    : unusable ? "A split cannot be read; jobs refuse the data set. The problems are below. Correct the files and upload or register them again under the same name."
    : html`Jobs refuse the data set unless they leave out the images with problems: <code>max_invalid_fraction</code> of at least ${Math.ceil(1000 * invalid) / 1000}. Or correct the files and upload or register them again under the same name.`}</p>`;
}

/** @type {[string, (report: Report) => any][]} */
const READ = [
  ["Images", (report) => number(report.counts.images)],
  ["Images that training can use", (report) => number(report.labelled_images)],
  ["Images without boxes", (report) => number(report.counts.images_without_boxes)],
  ["Images with problems", (report) => `${number(report.invalid_images)} (${percent(report.invalid_fraction)})`],
  ["Boxes", (report) => number(report.counts.boxes)],
  ["Boxes that mark crowds", (report) => number(report.counts.crowd)],
  ["Most objects on an image", (report) => number(report.max_objects)],
  ["Image width in pixels", (report) => report.image_sizes && extent(report.image_sizes.min_width, report.image_sizes.max_width)],
  ["Image height in pixels", (report) => report.image_sizes && extent(report.image_sizes.min_height, report.image_sizes.max_height)],
];

/** @param {number} low @param {number} high */
const extent = (low, high) => (low === high ? number(low) : `${number(low)} to ${number(high)}`);

/** Numbers of both splits. @param {{check: Check}} props */
function SplitTable({ check }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="What was read"><table>
    <caption class="visually-hidden">What was read</caption>
    <thead><tr><th><span class="visually-hidden">Number</span></th>${SPLITS.map(([, title]) => html`<th class="numeric">${title}</th>`)}</tr></thead>
    <tbody>${READ.map(([title, value]) => html`<tr><th scope="row">${title}</th>
      ${SPLITS.map(([name]) => html`<td class="numeric">${(check[name] && value(/** @type {Report} */ (check[name]))) ?? NONE}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** @param {{check: Check}} props */
function LeftOut({ check }) {
  if (!check.warnings.length) return html`<p>Nothing: training uses every image and box without a problem.</p>`;
  return html`<ul>${check.warnings.map((text) => html`<li>${text}</li>`)}</ul>`;
}

/** @param {{check: Check}} props */
function ClassChart({ check }) {
  const { names, series } = useMemo(() => countClasses(check), [check]);
  const shown = names.slice(0, MAX_BARS);
  const option = useMemo(() => ({
    legend: { top: 0, left: 0 }, tooltip: { trigger: "axis" },
    xAxis: { type: "value", minInterval: 1 },
    yAxis: { type: "category", data: shown, inverse: true, axisLabel: { width: 140, overflow: "truncate" } },
    series: series.map(({ title, counts }) => ({ name: title, type: "bar", data: shown.map((name) => counts.get(name) ?? 0) })),
  }), [names, series]);
  if (!names.length) return html`<p class="empty">No class was read.</p>`;
  return html`
    ${names.length > MAX_BARS && html`<p class="hint">The ${MAX_BARS} most frequent of ${names.length} classes; all are in the table.</p>`}
    <${Chart} option=${option} height=${60 + 26 * shown.length} label=${`Boxes per class: ${series.map(({ title, counts }) => `${title} ${shown.slice(0, 10).map((name) => `${name} ${counts.get(name) ?? 0}`).join(", ")}`).join("; ")}`} />
    <details><summary>As a table</summary><${ClassTable} check=${check} /></details>`;
}

/** Names by falling number of training boxes, and the counts of each split. @param {Check} check */
function countClasses(check) {
  const series = SPLITS.flatMap(([split, title]) => {
    const report = check[split];
    return report ? [{ title, counts: new Map(report.classes.map((row) => [row.name, row.boxes])) }] : [];
  });
  const total = (/** @type {string} */ name) => series[0].counts.get(name) ?? 0;
  const names = [...new Set(series.flatMap(({ counts }) => [...counts.keys()]))].sort((a, b) => total(b) - total(a));
  return { names, series };
}

/** @param {{check: Check}} props */
function ClassTable({ check }) {
  const find = (/** @type {"train" | "val"} */ split, /** @type {string} */ name) => check[split]?.classes.find((row) => row.name === name);
  const { names } = countClasses(check);
  /** @type {import("../../components/table.js").Column<string>[]} */
  const columns = [
    { name: "class", title: "Class", sort: (name) => name, cell: (name) => name },
    ...SPLITS.flatMap(([split, title]) => /** @type {const} */ (["boxes", "images"]).map((field) => ({
      name: `${split}-${field}`, title: `${title} ${field}`, numeric: true,
      sort: (/** @type {string} */ name) => find(split, name)?.[field], cell: (/** @type {string} */ name) => number(find(split, name)?.[field]),
    }))),
  ];
  return html`<${Table} label="Boxes and images per class" columns=${columns} rows=${names} rowKey=${(/** @type {string} */ name) => name}
    order=${route.value.query.classes ?? ""} onOrder=${(/** @type {string} */ classes) => setQuery({ classes })} />`;
}

const SIZES = /** @type {const} */ (["small", "medium", "large"]);

/** @param {{check: Check}} props */
function SizeChart({ check }) {
  const parts = useMemo(() => SPLITS.flatMap(([split, title]) => (check[split] ? [{ title, sizes: /** @type {Report} */ (check[split]).box_sizes }] : [])), [check]);
  const option = useMemo(() => ({
    legend: { top: 0, left: 0 }, tooltip: { trigger: "axis" },
    xAxis: { type: "category", data: SIZES },
    yAxis: { type: "value", minInterval: 1 },
    series: parts.map(({ title, sizes }) => ({ name: title, type: "bar", data: SIZES.map((size) => sizes[size]), label: { show: true, position: "top" } })),
  }), [parts]);
  return html`
    <${Chart} option=${option} height=${240} label=${`Boxes per size: ${parts.map(({ title, sizes }) => `${title} ${SIZES.map((size) => `${size} ${sizes[size]}`).join(", ")}`).join("; ")}`} />
    <p class="hint">COCO's sizes: small boxes have an area below 32 × 32 pixels of the image as annotated, medium ones below 96 × 96.</p>`;
}

/** @param {{check: Check}} props */
function Problems({ check }) {
  const { split = "", code = "", order = "" } = route.value.query;
  const rows = check.issues.map((issue, index) => ({ ...issue, index })).filter((issue) => (!split || issue.split === split) && (!code || issue.code === code));
  const codes = [...new Set(check.issues.map((issue) => issue.code))];
  return html`<section class="card">
    <h2>Problems</h2>
    <${ProblemKinds} check=${check} codes=${codes} />
    <h3>By file</h3>
    <div class="row">
      <label>Split <select value=${split} onChange=${(/** @type {any} */ event) => setQuery({ split: event.target.value })}>
        <option value="">both</option>${SPLITS.map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></label>
      <label>Kind <select value=${code} onChange=${(/** @type {any} */ event) => setQuery({ code: event.target.value })}>
        <option value="">all</option>${codes.map((name) => html`<option value=${name}>${words(name)}</option>`)}</select></label>
      <span class="muted">${plural(rows.length, "problem")}</span>
    </div>
    <${Table} label="Problems by file" columns=${PROBLEM_COLUMNS} rows=${rows} rowKey=${(/** @type {any} */ row) => String(row.index)}
      order=${order} onOrder=${(/** @type {string} */ order) => setQuery({ order })} empty="No problem of this kind in this split." />
  </section>`;
}

/** @type {import("../../components/table.js").Column<Issue>[]} */
const PROBLEM_COLUMNS = [
  { name: "file", title: "File", sort: (row) => row.file, cell: (row) => (row.file ? html`<code class=${row.file.length < 40 ? "together" : ""}>${row.file}</code>` : "whole split") },
  { name: "split", title: "Split", sort: (row) => row.split, cell: (row) => html`<span class="together">${row.split === "train" ? "training" : "validation"}</span>` },
  { name: "code", title: "Kind", sort: (row) => row.code, cell: (row) => words(row.code) },
  { name: "message", title: "Problem", cell: (row) => row.message },
  { name: "annotation", title: "Annotation id", numeric: true, sort: (row) => row.annotation_id, cell: (row) => row.annotation_id ?? NONE },
];

/** Each kind of problem with its count and next step. @param {{check: Check, codes: string[]}} props */
function ProblemKinds({ check, codes }) {
  const count = (/** @type {string} */ code) => SPLITS.reduce((sum, [split]) => sum + (/** @type {any} */ (check[split])?.issue_counts[code] ?? 0), 0)
    || check.issues.filter((issue) => issue.code === code).length;
  const shown = check.issues.length;
  const total = codes.reduce((sum, code) => sum + count(code), 0);
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Kinds of problems"><table>
      <thead><tr><th>Kind</th><th class="numeric">Number</th><th>Next step</th></tr></thead>
      <tbody>${codes.map((code) => html`<tr><td>${words(code)}</td><td class="numeric">${number(count(code))}</td><td><${Prose} text=${check.issues.find((issue) => issue.code === code)?.hint || "See the message."} /></td></tr>`)}</tbody>
    </table></div>
    ${total > shown && html`<p class="hint">The service lists ${number(shown)} of ${number(total)} problems, the first ones of each kind.</p>`}`;
}
