// @ts-check
/** The report of a job: verdict with intervals, advice, metrics, gain by size and class, and paired seeds. */
import { get } from "../../api.js";
import { Copy, Facts, JobLink, Loading, Status } from "../../components/basics.js";
import { Prose } from "../../components/prose.js";
import { Chart } from "../../components/chart.js";
import { bytes, count, milliseconds, NONE, number, percent, plural, points, range, signed, words } from "../../format.js";
import { html, useEffect, useMemo } from "../../html.js";
import { isBusy } from "../../limits.js";
import { useResource } from "../../resource.js";
import { capital, detectorOf } from "../../roles.js";
import { href } from "../../router.js";
import { gainChart, seedChart } from "./verdict_charts.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */
/** @typedef {import("../../types/api").components["schemas"]["frs__evaluation__report__Report"]} Report */
/** @typedef {import("./live.js").LiveJob} LiveJob */

const METRICS = { bbox_mAP: "mAP", bbox_mAP_50: "mAP50", bbox_mAP_75: "mAP75", bbox_mAP_s: "small", bbox_mAP_m: "medium", bbox_mAP_l: "large" };
const ROLES = { teacher: "Teacher", baseline: "Student alone", student: "Student", gain: "Gain" };
const VERDICTS = {
  improved: { sign: "▲", title: "Improved", class: "good", text: "The whole interval of the gain in mAP lies above 0." },
  no_difference: { sign: "=", title: "No difference shown", class: "muted", text: "The interval of the gain in mAP includes 0; the verdict follows mAP alone." },
  worse: { sign: "▼", title: "Worse", class: "bad", text: "The whole interval of the gain in mAP lies below 0." },
};

/** @param {{job: Job, live: LiveJob, related: Job[]}} props */
export function Tab({ job, live, related }) {
  const runId = job.kind === "compare" && job.parent_id ? job.parent_id : job.id;
  const states = related.map((other) => other.status).join();
  const evaluated = live.count("evaluation") + live.gaps.value;
  const report = useResource((abort) => get(`/jobs/${job.id}/report`, {}, abort), [job.id]);
  useEffect(() => { if (states || evaluated) report.reload(); }, [states, evaluated, job.status]);
  const run = related.find((other) => other.id === runId) ?? job;
  const titles = { ...ROLES, student: capital(detectorOf(job)) };
  return html`<${Loading} resource=${report}>${(/** @type {Report} */ data) => html`
    ${data.status === "partial" && html`<${Missing} report=${data} job=${job} related=${related} />`}
    ${data.comparison && html`<div class="grid"><${VerdictCard} report=${data} /><${Advice} report=${data} run=${run} /></div>`}
    ${data.status === "complete" && !data.comparison && html`<${Alone} job=${job} />`}
    ${data.rows.length > 0 && html`<${Scores} report=${data} titles=${titles} />`}
    ${data.comparison && html`<${Gains} report=${data} />`}
    <${Classes} report=${data} titles=${titles} />
    ${data.comparison && html`<${Seeds} report=${data} />`}
    <${Costs} report=${data} student=${detectorOf(job)} />`}<//>`;
}

/** What a partial report lacks. @param {{report: Report, job: Job, related: Job[]}} props */
function Missing({ report, job, related }) {
  const names = { student: "Student", baseline: "Student alone", comparison: "Comparison" };
  return html`<section class="card">
    <h2>The report is partial</h2>
    ${report.waiting_for.length ? html`<p>It lacks the results of these runs, and shows what is there:</p>
      <ul>${report.waiting_for.map((run) => html`<li>${names[run.what]}: ${run.job_id ? html`<${JobLink} id=${run.job_id} name=${[job, ...related].find((other) => other.id === run.job_id)?.name} />` : ""} <${Status} status=${run.status} />
        ${run.reason && html` <span class="muted">${words(run.reason)}</span>`}
        ${["failed", "cancelled"].includes(run.status) && html` It gives no result unless it is resumed or retried.`}</li>`)}</ul>`
      : html`<p>Not everything has been evaluated yet.</p>`}
  </section>`;
}

/** @param {{job: Job}} props */
function Alone({ job }) {
  if (job.kind !== "distill") return null;
  return html`<section class="card"><h2>No verdict</h2><p>The job has no baseline, so nothing shows what distillation gained. <a href=${href(["new"], { from: job.parent_id ?? job.id })}>Start a similar job</a> with <code>baseline: true</code>, or <code>{seeds: 3}</code> to see how much the gain varies.</p></section>`;
}

/** @param {{report: Report}} props */
function VerdictCard({ report }) {
  const { comparison, gap_closed: gap } = report;
  if (!comparison) return null;
  const verdict = VERDICTS[/** @type {keyof typeof VERDICTS} */ (report.verdict)];
  const { image_interval: images, seed_interval: seeds } = comparison;
  const bySeeds = report.verdict_by === "seeds";
  const rows = [
    ["over validation images", images, `${plural(images.images, "image")}, ${number(images.resamples)} resamples of the same images for both`, !bySeeds],
    ...(seeds ? [["over seeds", seeds, `${plural(seeds.n, "pair")} of runs, Student's t`, bySeeds]] : []),
  ];
  return html`<section class="card verdict">
    <h2 class=${verdict?.class}>${verdict ? html`<span aria-hidden="true">${verdict.sign}</span> ${verdict.title}` : "Verdict follows"}</h2>
    <p><span class="number">${signed(comparison.gain)}</span> points of mAP, ${range(bySeeds ? seeds : images)} with ${percent((bySeeds && seeds ? seeds : images).level)} confidence</p>
    ${verdict && html`<p>${verdict.text}${gap === null || gap <= 0 || report.verdict === "no_difference" ? "" : ` The student closed ${percent(gap)} of the gap to the teacher.`}</p>`}
    <${Facts} items=${rows.map(([title, interval, text, decides]) => [title, html`${range(/** @type {any} */ (interval))} <span class="muted">${text}${decides && seeds ? "; decides the verdict" : ""}</span>`])} />
    ${report.caveat && html`<p class="hint covers"><strong>What it covers:</strong> <${Prose} text=${report.caveat} /></p>`}
  </section>`;
}

/** @param {{report: Report, run: Job}} props */
function Advice({ report, run }) {
  const warnings = /** @type {string[]} */ (report.facts.warnings ?? []);
  return html`<section class="card">
    <h2>What to do next</h2>
    ${report.advice.map(({ topic, text }) => html`<p><strong class="capital">${words(topic)}.</strong> <${Prose} text=${text} /></p>`)}
    ${!report.advice.length && html`<p class="muted">${report.status === "partial" ? "Advice follows when all runs have ended." : "The facts of this report ask for nothing more. Next: export the student under Files."}</p>`}
    ${warnings.map((text) => html`<p class="warn"><strong>Warning:</strong> ${text}</p>`)}
    <div class="row">
      <a class="button" href=${href(["new"], { from: run.id, seeds: "3" })}>Start it with 3 seeds</a>
      <a class="button" href=${href(["new"], { from: run.id })}>Start a similar job</a>
    </div>
  </section>`;
}

/** @param {{report: Report, titles: typeof ROLES}} props */
function Scores({ report, titles }) {
  const intervals = report.comparison?.image_interval.by_number;
  const columns = /** @type {[keyof typeof METRICS, string][]} */ (Object.entries(METRICS));
  const name = /** @type {string | undefined} */ (report.facts.method);
  const method = name && name !== "none" ? ` with ${name === "frs" ? "FRS" : name}` : "";
  return html`<section class="card">
    <h2>Metrics on the validation images, points</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Metrics"><table>
      <thead><tr><th><span class="visually-hidden">Detector</span></th>${columns.map(([, title]) => html`<th class="numeric">${title}</th>`)}</tr></thead>
      <tbody>
        ${report.rows.map((row) => html`<tr key=${row.role}>
          <th scope="row">${row.role !== "gain" && html`<span class=${`swatch of-${row.role}`} aria-hidden="true"></span> `}${titles[row.role]}${row.role === "student" ? method : ""}</th>
          ${columns.map(([name]) => html`<td class="numeric">${row.role === "gain" ? html`<strong>${signed(row.metrics[name])}</strong>` : points(row.metrics[name])}</td>`)}</tr>`)}
        ${intervals && html`<tr><th scope="row" class="muted">from … to</th>${columns.map(([name]) => html`<td class="numeric muted">${intervals[name] ? html`${signed(intervals[name]?.low)}<br />${signed(intervals[name]?.high)}` : NONE}</td>`)}</tr>`}
        ${report.files.map((file) => html`<tr key=${file.name}><th scope="row">${file.name}</th>${columns.map(([name]) => html`<td class="numeric">${points(file.metrics[name])}</td>`)}</tr>`)}
      </tbody></table></div>
    <p class="hint">Small, medium and large are COCO's sizes: below 32², up to 96², and above, in pixels.${(report.comparison?.pairs.length ?? 0) > 1 ? " Values are means over the seeds." : ""}</p>
  </section>`;
}

/** @param {{report: Report}} props */
function Gains({ report }) {
  const rows = useMemo(() => {
    const gain = report.rows.find((row) => row.role === "gain")?.metrics ?? {};
    const intervals = report.comparison?.image_interval.by_number ?? {};
    return Object.entries(METRICS).filter(([name]) => gain[name] !== null && gain[name] !== undefined)
      .map(([name, title]) => ({ name: title, gain: /** @type {number} */ (gain[name]), interval: intervals[name] ?? null }));
  }, [report]);
  const level = percent(report.comparison?.image_interval.level);
  const { option, label } = useMemo(() => gainChart(rows), [rows]);
  return html`<section class="card"><h2>Gain by metric and object size</h2>
    <${Chart} option=${option} label=${label} height=${60 + 34 * rows.length} />
    <p class="hint">Points with their ${level} intervals over the validation images. An interval that includes 0 shows no difference.</p></section>`;
}

/** @param {{report: Report, titles: typeof ROLES}} props */
function Classes({ report, titles }) {
  const names = Object.keys(report.per_class);
  const rows = useMemo(() => names.map((name) => /** @type {{name: string} & Partial<Record<keyof typeof ROLES, number | null>>} */ ({ name, ...report.per_class[name] }))
    .sort((a, b) => (b.gain ?? -Infinity) - (a.gain ?? -Infinity) || (b.student ?? -1) - (a.student ?? -1)), [report]);
  const gains = useMemo(() => rows.filter((row) => typeof row.gain === "number").map((row) => ({ name: row.name, gain: /** @type {number} */ (row.gain), interval: null })), [rows]);
  const { option, label } = useMemo(() => gainChart(gains), [gains]);
  if (!names.length) return null;
  const roles = /** @type {(keyof typeof ROLES)[]} */ (Object.keys(ROLES)).filter((role) => rows.some((row) => role in row));
  return html`<section class="card"><h2>mAP by class, points</h2>
    <div class="grid flush">
      <div class="scroll tall" tabindex="0" role="region" aria-label="mAP by class"><table>
        <thead><tr><th>Class</th>${roles.map((role) => html`<th class="numeric">${titles[role]}</th>`)}</tr></thead>
        <tbody>${rows.map((row) => html`<tr key=${row.name}><th scope="row">${row.name}</th>${roles.map((role) => html`<td class="numeric">${role === "gain" ? signed(row[role]) : points(row[role])}</td>`)}</tr>`)}</tbody>
      </table></div>
      ${gains.length > 0 && html`<div class="scroll tall" tabindex="0" role="region" aria-label="Gain by class"><${Chart} option=${option} label=${label} height=${60 + 28 * gains.length} /></div>`}
    </div>
    ${gains.length > 0 && html`<p class="hint">The service computes intervals for the six metrics, not for single classes: the gain of a class with few objects is uncertain.</p>`}
  </section>`;
}

/** @param {{report: Report}} props */
function Seeds({ report }) {
  const comparison = /** @type {NonNullable<Report["comparison"]>} */ (report.comparison);
  const { option, label } = useMemo(() => seedChart(comparison), [comparison]);
  return html`<section class="card"><h2>Pairs of runs with the same seed, mAP in points</h2>
    <div class="grid flush">
      ${comparison.pairs.length > 1 && html`<${Chart} option=${option} label=${label} height=${240} />`}
      <div class="scroll" tabindex="0" role="region" aria-label="Pairs of runs"><table>
        <thead><tr><th class="numeric">Seed</th><th class="numeric">Student alone</th><th class="numeric">Student</th><th class="numeric">Gain</th></tr></thead>
        <tbody>${comparison.pairs.map((pair) => html`<tr key=${pair.seed}><td class="numeric">${pair.seed}</td><td class="numeric">${points(pair.baseline)}</td><td class="numeric">${points(pair.student)}</td><td class="numeric">${signed(pair.gain)}</td></tr>`)}
        ${comparison.seed_interval && html`<tr><th scope="row" colspan="3">Mean, ${range(comparison.seed_interval)}</th><td class="numeric"><strong>${signed(comparison.seed_interval.mean)}</strong></td></tr>`}</tbody>
      </table></div>
    </div>
    ${!comparison.seed_interval && html`<p class="hint">One pair has no interval over seeds: <code>baseline: {seeds: 3}</code> trains three.</p>`}
  </section>`;
}

/** @param {{report: Report, student: string}} props `student`: what the trained detector is called. */
function Costs({ report, student }) {
  const facts = /** @type {any} */ (report.facts);
  const both = (/** @type {string} */ name, /** @type {(value: any) => string} */ format) => {
    const texts = ["teacher", "student"].filter((role) => facts[`${role}_${name}`] !== undefined && facts[`${role}_${name}`] !== null).map((role) => `${role === "student" ? student : role} ${format(facts[`${role}_${name}`])}`);
    return texts.length ? texts.join(", ") : null;
  };
  const weights = Object.entries(facts.weights ?? {}).filter(([name, value]) => ["feature", "logit"].includes(name) && value).map(([name, value]) =>
    `${name} ${number(/** @type {number} */ (value))}${facts.weights_shares?.[name] ? `, calibrated to ${number(facts.weights_shares[name])} times the task's gradient` : ""}${facts.weights_paper?.[name] ? ` (the paper's: ${number(facts.weights_paper[name])})` : ""}`);
  const items = /** @type {[string, any][]} */ ([
    ["Parameters", both("parameters", count)], ["FLOPs an image", both("flops", count)],
    ["Latency an image", both("latency_ms", milliseconds) && `${both("latency_ms", milliseconds)}${isBusy(facts.latency_load) ? " (measured on a busy machine)" : ""}`], ["Evaluated at", both("image_size", (size) => `${size.join(" x ")} pixels`)],
    ["Weights of the terms", weights.length ? weights.join("; ") : null],
    ["Teacher's classes", facts.teacher_classes ? `${facts.teacher_classes.used} of ${facts.teacher_classes.total} used, by name` : null],
    ["Layers from the teacher", facts.teacher_init ? `${facts.teacher_init.copied.length} of ${facts.teacher_init.copied.length + facts.teacher_init.own.length} in neck and head` : null],
    ["Training images", facts.training_images ? number(facts.training_images) : null], ["Device, precision", facts.device ? `${facts.device}, ${facts.precision ?? NONE}` : null],
    ...report.files.map((file) => [file.name, `${bytes(file.bytes)}, ${milliseconds(file.latency_ms)} on one CPU thread, ${file.nothing_to_compare ? "nothing to compare" : `mAP ${signed(-file.drop, 2)} points${file.passed ? "" : `, more than the ${points(file.max_drop, 2)} allowed`}`}`]),
    [`${capital(student)}'s SHA-256`, facts.student_sha256 ? html`<code>${facts.student_sha256.slice(0, 16)}…</code> <${Copy} text=${facts.student_sha256} />` : null],
  ]).filter(([, value]) => value !== null);
  return items.length ? html`<section class="card"><h2>Costs and facts</h2><${Facts} items=${items} /></section>` : null;
}
