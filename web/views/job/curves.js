// @ts-check
/** Curves of a run group: student and baseline on one axis with the teacher as a line, live. */
import { get, save, send } from "../../api.js";
import { Loading, Problem } from "../../components/basics.js";
import { Chart, COLOURS, PALETTE } from "../../components/chart.js";
import { attempt } from "../../components/toast.js";
import { number, points } from "../../format.js";
import { html, useEffect, useMemo, useRef, useState } from "../../html.js";
import { useResource } from "../../resource.js";
import { route, setQuery } from "../../router.js";
import { isDark } from "../../theme.js";
import { combined, grouped, smoothed, useCurves } from "./curve_data.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */
/** @typedef {import("./live.js").LiveJob} LiveJob */
/** @typedef {{name: string, jobs: Job[], key: string, colour: string, dash?: string}} Source a line: one metric, its mean over the jobs */
/** @typedef {{name: string, title: string, sources: Source[], level?: number | null, scale?: number, hint?: string}} Panel */

/** Groups of metrics that belong in one chart. */
const TERMS = /^train\/(loss_|distill_)/;
const SHARES = /^train\/share_/;
const TITLES = {
  "val/bbox_mAP": "mAP on the validation images", "val/bbox_mAP_50": "mAP50", "val/bbox_mAP_75": "mAP75", "val/bbox_mAP_s": "mAP of small objects",
  "val/bbox_mAP_m": "mAP of medium objects", "val/bbox_mAP_l": "mAP of large objects", "train/loss": "Loss of training", "train/lr": "Learning rate",
  "train/agreement": "Agreement of student and teacher", "train/images_per_second": "Images per second", "train/memory_mb": "Memory in MiB", terms: "Terms of the loss",
  shares: "Gradient of each term / of the task",
};
const X = { step: "Training step", epoch: "Epoch", time: "Minutes since the start" };
const MAX_CSV_POINTS = 10_000;

/** @param {{job: Job, live: LiveJob, related: Job[]}} props */
export function Tab({ job, live, related }) {
  const { query } = route.value;
  const x = /** @type {keyof typeof X} */ (Object.hasOwn(X, query.x ?? "") ? query.x : "step");
  const smoothing = Math.min(0.99, Math.max(0, Number(query.smooth ?? 0.6) || 0));
  const groups = runGroups(job, related);
  const jobs = groups.flatMap((group) => group.jobs);
  const evaluations = live.count("evaluation");
  const catalogue = useResource((abort) => get(`/jobs/${job.id}/metrics`, { max_points: 2 }, abort), [job.id]);
  const teacher = useResource((abort) => get(`/jobs/${job.kind === "distill" ? job.id : job.parent_id ?? job.id}/evaluations`, {}, abort), [job.id]);
  const [hasMetrics, setHasMetrics] = useState(false);
  useEffect(() => live.listen((type) => { if (type === "metric") setHasMetrics(true); }), [live]);
  useEffect(() => { if (hasMetrics) catalogue.reload(); }, [hasMetrics, job.phase, evaluations]);
  useEffect(() => { if (evaluations) teacher.reload(); }, [evaluations]);
  const keys = /** @type {string[]} */ ((catalogue.data?.series ?? []).map((/** @type {any} */ series) => series.key));
  const names = selected(query.metrics, keys);
  const panels = names.map((name) => panel(name, groups, keys, teacher.data?.data ?? []));
  const wanted = [...new Set(panels.flatMap((item) => item.sources.map((source) => source.key)))].sort();
  const { curves, error } = useCurves(jobs, wanted.length ? wanted : ["val/bbox_mAP"], x, live);

  return html`
    <${Controls} keys=${keys} names=${names} x=${x} smoothing=${smoothing} isLog=${query.log === "1"} jobs=${jobs} wanted=${wanted} />
    ${error && error.code !== "unreachable" && html`<${Problem} error=${error} />`}
    <${Loading} resource=${{ ...catalogue, error: catalogue.data ? null : catalogue.error }}>${() => (!keys.length
      ? html`<p class="empty">No metrics yet: they appear with the first training step. ${job.phase ? `Now: ${job.phase}.` : ""}</p>`
      : html`<div class="charts">${panels.map((item) => html`<${PanelCard} key=${item.name} panel=${item} curves=${curves} x=${x} smoothing=${smoothing} isLog=${query.log === "1"} />`)}</div>`)}<//>`;
}

/** Runs that one line shows together: the seeds of the student, and those of the baseline. @param {Job} job @param {Job[]} related */
function runGroups(job, related) {
  const of = (/** @type {string[]} */ ids) => related.filter((other) => ids.includes(other.id));
  if (job.kind === "distill") {
    return [{ name: "Student", colour: COLOURS.student, jobs: [job, ...of(job.seed_job_ids)] }, { name: "Baseline", colour: COLOURS.baseline, dash: "dashed", jobs: of(job.baseline_job_ids) }].filter((group) => group.jobs.length);
  }
  return [job.parent_id ? { name: "Baseline", colour: COLOURS.baseline, jobs: [job] } : { name: "Detector", colour: COLOURS.student, jobs: [job] }];
}

/** Names of the panels to show: those of the address, else the main ones. @param {string | undefined} wish @param {string[]} keys */
function selected(wish, keys) {
  if (wish !== undefined) return wish.split(",").filter(Boolean);
  return ["val/bbox_mAP", "train/loss", keys.some((key) => TERMS.test(key)) && "terms", keys.some((key) => SHARES.test(key)) && "shares"].filter((name) => typeof name === "string");
}

/** @param {string} name @param {ReturnType<typeof runGroups>} groups @param {string[]} keys @param {any[]} evaluations @returns {Panel} */
function panel(name, groups, keys, evaluations) {
  const title = TITLES[/** @type {keyof typeof TITLES} */ (name)] ?? name.replace(/^(train|val)\//, "").replaceAll("_", " ");
  if (name === "terms" || name === "shares") {
    const pattern = name === "terms" ? TERMS : SHARES;
    const sources = keys.filter((key) => pattern.test(key)).map((key, index) => ({
      name: key.replace(/^train\/(loss_|share_)?/, "").replace("distill_", "distillation: "), jobs: [groups[0].jobs[0]], key, colour: PALETTE[index % PALETTE.length], dash: ["solid", "dashed", "dotted"][index % 3],
    }));
    return { name, title, sources, hint: name === "terms" ? groups[0].jobs[0].kind !== "distill" ? "" : "Distillation terms before their weights; a logarithmic y shows the small ones." : "Weight x gradient norm of the term, divided by the gradient norm of the detection loss: at 1 both pull equally strongly on the student." };
  }
  const teacher = evaluations.find((evaluation) => evaluation.role === "teacher");
  const isScore = name.startsWith("val/bbox_mAP");
  return {
    name, title: isScore ? `${title}, points` : title, scale: isScore ? 100 : 1, level: name.startsWith("val/") ? teacher?.metrics[name.slice(4)] : null,
    sources: groups.map((group) => ({ ...group, key: name })),
    hint: name === "train/loss" && groups[0].jobs[0].kind === "distill" ? "The student's loss includes the distillation terms." : "",
  };
}

/** @param {{keys: string[], names: string[], x: string, smoothing: number, isLog: boolean, jobs: Job[], wanted: string[]}} props */
function Controls({ keys, names, x, smoothing, isLog, jobs, wanted }) {
  const choices = ["terms", "shares"].filter((name) => keys.some((key) => (name === "terms" ? TERMS : SHARES).test(key))).concat(keys);
  const toggle = (/** @type {string} */ name) => setQuery({ metrics: (names.includes(name) ? names.filter((other) => other !== name) : [...names, name]).join() || "," });
  return html`
    <div class="row controls" role="group" aria-label="Axes">
      <label>x <select value=${x} onChange=${(/** @type {any} */ event) => setQuery({ x: event.target.value })}>
        ${Object.entries(X).map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></label>
      <label>Smoothing <input type="range" min="0" max="0.99" step="0.01" value=${smoothing} onInput=${(/** @type {any} */ event) => setQuery({ smooth: event.target.value })} /> ${smoothing.toFixed(2)}</label>
      <label><input type="checkbox" checked=${isLog} onChange=${() => setQuery({ log: isLog ? null : "1" })} /> Logarithmic y</label>
      <span class="grow"></span>
      <button onClick=${() => attempt(() => saveCsv(jobs, wanted, x))}>Download CSV</button>
    </div>
    <details class="card"><summary>Metrics (${names.length} of ${choices.length} shown)</summary>
      <div class="choices">${choices.map((name) => html`<label key=${name}><input type="checkbox" checked=${names.includes(name)} onChange=${() => toggle(name)} /> ${TITLES[/** @type {keyof typeof TITLES} */ (name)] ?? name}</label>`)}</div>
    </details>`;
}

/** Save the points of the shown metrics of all runs, as the API writes them, with the job in the first column. @param {Job[]} jobs @param {string[]} keys @param {string} x */
async function saveCsv(jobs, keys, x) {
  const texts = await Promise.all(jobs.map(async (job) => {
    const response = await send("GET", `/jobs/${job.id}/metrics`, { query: { keys: keys.join(), x, max_points: MAX_CSV_POINTS }, headers: { Accept: "text/csv" } });
    return (await response.text()).trimEnd().split("\n").map((line, index) => `${index ? job.id : "job"},${line}`);
  }));
  const lines = texts.flatMap((text, index) => (index ? text.slice(1) : text));
  save(`${jobs[0].name ?? jobs[0].id}-curves.csv`, new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
}

/** @param {{panel: Panel, curves: Record<string, import("./curve_data.js").Curves> | null, x: keyof typeof X, smoothing: number, isLog: boolean}} props */
function PanelCard({ panel, curves, x, smoothing, isLog }) {
  const chart = useRef(/** @type {any} */ (null));
  const { option, label } = useMemo(() => draw(panel, curves, x, smoothing, isLog), [panel.level, panel.sources.map((source) => source.jobs.map((job) => job.id).join()).join(), panel.sources.length, curves, x, smoothing, isLog]);
  const savePicture = async () => {
    const url = chart.current?.getDataURL({ pixelRatio: 2, backgroundColor: isDark.value ? "#181c23" : "#ffffff" });
    if (url) save(`${panel.name.replaceAll("/", "-")}.png`, new Blob([Uint8Array.from(atob(url.split(",")[1]), (character) => character.charCodeAt(0))], { type: "image/png" }));
  };
  return html`
    <section class="card">
      <div class="row"><h2>${panel.title}</h2><span class="grow"></span><button class="quiet" onClick=${savePicture}>PNG</button></div>
      ${curves && !option.series.length ? html`<p class="empty">No points yet${panel.name.startsWith("val/") ? ": they appear with the first evaluation" : ""}.</p>`
        : curves ? html`<${Chart} option=${option} label=${label} onReady=${(/** @type {any} */ ready) => { chart.current = ready; }} />` : html`<p class="loading" role="status">Loading</p>`}
      ${panel.hint && html`<p class="hint">${panel.hint}</p>`}
    </section>`;
}

/**
 * @param {Panel} panel @param {Record<string, import("./curve_data.js").Curves> | null} curves @param {keyof typeof X} x @param {number} smoothing @param {boolean} isLog
 * @returns {{option: any, label: string}}
 */
function draw(panel, curves, x, smoothing, isLog) {
  const scale = panel.scale ?? 1;
  const value = (/** @type {number | null} */ y) => (y === null || (isLog && y <= 0) ? null : y * scale);
  const format = (/** @type {number | null | undefined} */ y) => (scale === 100 ? points((y ?? NaN) / 100) : number(y));
  const lines = panel.sources.map((source) => ({ source, line: line(source, curves, x, panel.name.startsWith("val/") || x === "epoch" ? 0 : smoothing) })).filter(({ line }) => line.mean.length);
  const series = lines.flatMap(({ source, line }) => {
    const style = { name: source.name, color: source.colour, showSymbol: line.mean.length < 30, symbolSize: 5, lineStyle: { width: 2, type: source.dash ?? "solid" } };
    const hidden = { type: "line", silent: true, showSymbol: false, tooltip: { show: false }, lineStyle: { opacity: 0 }, z: 1 };
    const band = line.runs > 1 ? [
      { ...hidden, name: `${source.name} lowest`, stack: source.name, stackStrategy: "all", data: line.mean.map((point) => [point.x, value(point.low)]) },
      { ...hidden, name: `${source.name} range`, stack: source.name, stackStrategy: "all", areaStyle: { color: source.colour, opacity: 0.18 }, data: line.mean.map((point) => [point.x, (value(point.high) ?? 0) - (value(point.low) ?? 0)]) },
    ] : [];
    const raw = line.raw.length ? [{ ...hidden, name: `${source.name} raw`, lineStyle: { width: 1, color: source.colour, opacity: 0.25 }, data: line.raw.map((point) => [point.x, value(point.mean)]) }] : [];
    return [...band, ...raw, { ...style, type: "line", z: 3, data: line.mean.map((point) => [point.x, value(point.mean)]) }];
  });
  const level = panel.level;
  if (level !== null && level !== undefined) {
    series.push(/** @type {any} */ ({ type: "line", name: "Teacher", color: COLOURS.teacher, data: [], lineStyle: { type: "dotted", width: 2 }, symbol: "none",
      markLine: { symbol: "none", silent: true, label: { formatter: `Teacher ${format(level * scale)}`, position: "insideEndTop", color: isDark.value ? "#b4b4b4" : "#5d5d5d" }, lineStyle: { color: COLOURS.teacher, type: "dotted", width: 2 }, data: [{ yAxis: level * scale }] } }));
  }
  const names = [...lines.map(({ source }) => source.name), ...(level !== null && level !== undefined ? ["Teacher"] : [])];
  const ends = lines.map(({ source, line }) => `${source.name} ${format((line.mean.at(-1)?.mean ?? NaN) * scale)}${line.runs > 1 ? ` (mean of ${line.runs} seeds)` : ""}`);
  return {
    label: `${panel.title} by ${X[x].toLowerCase()}: ${[...ends, ...(level !== null && level !== undefined ? [`Teacher ${format(level * scale)}`] : [])].join(", ") || "no points"}`,
    option: {
      legend: { data: names, top: 0, left: 0, type: "scroll" },
      tooltip: { trigger: "axis", formatter: (/** @type {any[]} */ items) => tooltip(items, names, x, format) },
      grid: { bottom: 24 },
      xAxis: { type: "value", name: X[x], nameLocation: "middle", nameGap: 26, min: x === "time" ? 0 : "dataMin", max: "dataMax", splitLine: { show: false }, axisLabel: { hideOverlap: true, showMaxLabel: x !== "time", formatter: (/** @type {number} */ at) => number(Number(at.toPrecision(6))) } },
      yAxis: { type: isLog ? "log" : "value", scale: true, ...(level !== null && level !== undefined && { max: (/** @type {any} */ extent) => Math.min(scale, 10 * Math.ceil((Math.max(extent.max, level * scale) * 1.05) / 10)) }), axisLabel: { formatter: (/** @type {number} */ y) => number(Number(y.toPrecision(6))).replace(/\.?0+e/, "e") } },
      series,
    },
  };
}

/** @param {any[]} items @param {string[]} names @param {keyof typeof X} x @param {(y: number) => string} format */
function tooltip(items, names, x, format) {
  const rows = items.filter((item) => names.includes(item.seriesName)).map((item) => `${item.seriesName}  ${format(item.value[1])}`);
  return [`${X[x]} ${number(items[0]?.value[0])}`, ...rows].join("\n");
}

/** @param {Source} source @param {Record<string, import("./curve_data.js").Curves> | null} curves @param {keyof typeof X} x @param {number} smoothing */
function line(source, curves, x, smoothing) {
  const runs = source.jobs.flatMap((job) => {
    const found = curves?.[job.id]?.series[source.key];
    if (!found?.x.length) return [];
    if (x === "epoch") return [grouped(found)];
    const start = Date.parse(job.started_at ?? job.created_at) / 1000;
    return [x === "time" ? { ...found, x: found.x.map((at) => (at - start) / 60) } : found];
  });
  const isSmooth = smoothing > 0 && runs.some((run) => run.x.length > 20);
  return { runs: runs.length, mean: combined(isSmooth ? runs.map((run) => smoothed(run, smoothing)) : runs), raw: isSmooth && runs.length === 1 ? combined(runs) : [] };
}
