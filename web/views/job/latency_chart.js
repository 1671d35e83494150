// @ts-check
/** mAP against latency of teacher, student, baseline and exported files. */
import { get } from "../../api.js";
import { Loading } from "../../components/basics.js";
import { Chart, COLOURS } from "../../components/chart.js";
import { milliseconds, points } from "../../format.js";
import { html, useMemo } from "../../html.js";
import { isBusy } from "../../limits.js";
import { useResource } from "../../resource.js";
import { detectorOf } from "../../roles.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */
/** @typedef {import("../../types/api").components["schemas"]["frs__evaluation__report__Report"]} Report */
/** @typedef {{name: string, latency: number, mAP: number, symbol: string, side: string, color: string}} Point */

/** @param {{job: Job}} props */
export function LatencyChart({ job }) {
  const report = useResource((signal) => get(`/jobs/${job.id}/report`, {}, signal), [job.id, job.status]);
  return html`<${Loading} resource=${report}>${(/** @type {Report} */ report) => html`<${Scatter} report=${report} student=${detectorOf(job)} />`}<//>`;
}

/** @param {{report: Report, student: string}} props `student`: what the trained detector is called. */
function Scatter({ report, student }) {
  const found = useMemo(() => pointsOf(report, student), [report]);
  const option = useMemo(() => ({
    tooltip: { formatter: (/** @type {any} */ item) => `${item.seriesName}\n${milliseconds(item.value[0])}, mAP ${item.value[1].toFixed(1)}` },
    grid: { top: 24, right: 60, bottom: 30 },
    xAxis: { type: "value", min: 0, name: "latency in ms for one image", nameLocation: "middle", nameGap: 26 },
    yAxis: {
      type: "value", min: (/** @type {any} */ { min }) => Math.max(0, 20 * Math.floor((min - 10) / 20)), max: (/** @type {any} */ { max }) => Math.min(100, 20 * Math.ceil((max + 5) / 20)),
      name: "mAP", nameLocation: "middle", nameGap: 34,
    },
    series: found.map((point) => ({
      name: point.name, type: "scatter", symbol: point.symbol, symbolSize: 13, itemStyle: { color: point.color },
      data: [[point.latency, Math.round(1000 * point.mAP) / 10]],
      label: { show: true, position: point.side, formatter: point.name, distance: 7 },
    })),
  }), [found]);
  if (found.length < 2) return html`<p class="empty">Too few latencies are known yet: they are measured when the job ends, and by an export.</p>`;
  const device = report.facts.latency_device ?? "unknown";
  return html`
    <${Chart} option=${option} height=${320} label=${`mAP against latency: ${found.map((point) => `${point.name} ${points(point.mAP)} at ${milliseconds(point.latency)}`).join("; ")}`} />
    <p class="hint">The trained detectors were measured in PyTorch (device: ${device}), the exported files in onnxruntime on one CPU thread.${" "}
      ${isBusy(/** @type {any} */ (report.facts).latency_load) || report.files.some((file) => isBusy(file.load)) ? html`<strong class="warn">Measured on a busy machine: other work made these times longer.</strong> ` : ""}
      ${report.rows.some((row) => row.role === "baseline") ? "The baseline is the same detector as the student, so it has the student's latency." : ""}</p>`;
}

/** @param {Report} report @param {string} student @returns {Point[]} */
function pointsOf(report, student) {
  const { facts, rows, files } = report;
  /** @type {[string, any, string, string][]} */
  const roles = [["teacher", facts.teacher_latency_ms, "diamond", "bottom"], ["baseline", facts.student_latency_ms, "triangle", "bottom"], ["student", facts.student_latency_ms, "circle", "top"]];
  const trained = roles.map(([role, latency, symbol, side]) => ({
    name: role === "student" ? student : role, latency, mAP: rows.find((row) => row.role === role)?.metrics.bbox_mAP, symbol, side, color: COLOURS[/** @type {keyof typeof COLOURS} */ (role)],
  }));
  const exported = (files ?? []).map((file) => ({ name: file.name, latency: file.latency_ms, mAP: file.metrics.bbox_mAP, ...(file.format === "onnx" ? { symbol: "rect", side: "top" } : { symbol: "emptyRect", side: "bottom" }), color: COLOURS.gain }));
  return /** @type {Point[]} */ ([...trained, ...exported].filter((point) => typeof point.latency === "number" && typeof point.mAP === "number"));
}
