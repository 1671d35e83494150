// @ts-check
/** One metric of several jobs on a common grid of steps. */
import { get } from "../../api.js";
import { Loading } from "../../components/basics.js";
import { Chart, PALETTE } from "../../components/chart.js";
import { number } from "../../format.js";
import { html, useMemo } from "../../html.js";
import { useResource } from "../../resource.js";
import { route, setQuery } from "../../router.js";

/** @typedef {import("../../types/api").components["schemas"]["Curve"]} Curve */
/** @typedef {import("../../types/api").components["schemas"]["ComparedJob"]} ComparedJob */

const POINTS = 1000;
const LINES = ["solid", "dashed"];
/** The palette from its third colour on, because the first two belong to student and baseline in other charts. */
const LINE_COLOURS = [...PALETTE.slice(2), ...PALETTE.slice(0, 2)];
const isAccuracy = (/** @type {string} */ key) => key.includes("mAP");

/** @param {{ids: string[], jobs: ComparedJob[], keys: string[], isLive: boolean}} props */
export function Curves({ ids, jobs, keys, isLive }) {
  if (!keys.length) return html`<section class="card"><h2>Curves</h2><p class="empty">No job has written metrics yet.</p></section>`;
  const { metric = "", log } = route.value.query;
  const key = keys.includes(metric) ? metric : keys.includes("val/bbox_mAP") ? "val/bbox_mAP" : keys[0];
  return html`
    <section class="card"><h2>Curves</h2>
      <div class="row">
        <label>Metric <select onChange=${(/** @type {any} */ event) => setQuery({ metric: event.target.value })}>
          ${keys.map((item) => html`<option key=${item} value=${item} selected=${item === key}>${item}</option>`)}</select></label>
        <label><input type="checkbox" checked=${log === "1"} onChange=${(/** @type {any} */ event) => setQuery({ log: event.target.checked ? "1" : null })} /> logarithmic axis</label>
      </div>
      <${OneMetric} ids=${ids} jobs=${jobs} metric=${key} isLog=${log === "1"} isLive=${isLive} />
    </section>`;
}

/** @param {{ids: string[], jobs: ComparedJob[], metric: string, isLog: boolean, isLive: boolean}} props */
function OneMetric({ ids, jobs, metric, isLog, isLive }) {
  const curve = useResource(async (signal) => /** @type {Curve | undefined} */ ((await get("compare", { jobs: ids.join(","), keys: metric, max_points: POINTS }, signal)).curves[0]), [metric, isLive], isLive ? 10 : 0);
  return html`<${Loading} resource=${curve}>${(/** @type {Curve | undefined} */ data) => (data
    ? html`<${CurveChart} curve=${data} jobs=${jobs} isLog=${isLog} />`
    : html`<p class="empty">The jobs have no values of this metric.</p>`)}<//>`;
}

/** @param {{curve: Curve, jobs: ComparedJob[], isLog: boolean}} props */
function CurveChart({ curve, jobs, isLog }) {
  const option = useMemo(() => chartOption(curve, jobs.map((job) => job.name ?? job.id), isLog), [curve, isLog]);
  const scale = isAccuracy(curve.key) ? 100 : 1;
  const last = jobs.map((job, index) => `${job.name ?? job.id} ends at ${number((curve.y[index].findLast((value) => value !== null) ?? NaN) * scale)}`);
  return html`
    <${Chart} option=${option} height=${340} label=${`${curve.key} by training step: ${last.join(", ")}`} />
    ${curve.sampled && html`<p class="hint">Some points are left out; first, last, lowest and highest are shown.</p>`}`;
}

/** @param {Curve} curve @param {string[]} names @param {boolean} isLog */
function chartOption(curve, names, isLog) {
  const scale = isAccuracy(curve.key) ? 100 : 1;
  return {
    color: LINE_COLOURS,
    legend: { type: "scroll", top: 0, data: names.map((_, index) => `${index + 1}: ${names[index]}`) },
    tooltip: { trigger: "axis", valueFormatter: (/** @type {number} */ value) => number(value) },
    xAxis: { type: "value", name: "step", nameLocation: "middle", nameGap: 26, min: "dataMin", max: "dataMax" },
    yAxis: { type: isLog ? "log" : "value", name: isAccuracy(curve.key) ? `${curve.key} (points)` : curve.key, nameTextStyle: { align: "left" }, scale: true },
    grid: { top: 62, bottom: 28 },
    series: names.map((name, index) => {
      const data = curve.x.map((x, position) => [x, curve.y[index][position]]).filter(([, y]) => y !== null && (!isLog || Number(y) > 0)).map(([x, y]) => [x, Number(y) * scale]);
      return {
        type: "line", name: `${index + 1}: ${name}`, data, showSymbol: data.length < 30, symbolSize: 5,
        lineStyle: { width: 1.5, type: LINES[Math.floor(index / LINE_COLOURS.length) % LINES.length] },
      };
    }),
  };
}
