// @ts-check
/** Charts of the report: gains with error bars, and pairs of runs as lines. */
import { COLOURS, PALETTE } from "../../components/chart.js";
import { points, range, signed } from "../../format.js";

/** @typedef {import("../../types/api").components["schemas"]["frs__evaluation__report__Report"]} Report */
/** @typedef {{name: string, gain: number, interval: {low: number, high: number} | null}} Gain */

/**
 * Gains, or other values in points, from top to bottom, with their intervals as bars.
 * @param {Gain[]} rows @param {string} [title] @returns {{option: any, label: string}}
 */
export function gainChart(rows, title = "Gain in points") {
  const text = (/** @type {Gain} */ row) => `${row.name} ${signed(row.gain)}${row.interval ? ` (${range(row.interval)})` : ""}`;
  return {
    label: `${title}: ${rows.map(text).join("; ")}`,
    option: {
      grid: { top: 8, bottom: 24, right: 24 },
      tooltip: { formatter: (/** @type {any} */ item) => text(rows[item.dataIndex]) },
      xAxis: { type: "value", name: title, nameLocation: "middle", nameGap: 26 },
      yAxis: { type: "category", inverse: true, data: rows.map((row) => row.name), axisTick: { show: false }, axisLine: { show: false }, axisLabel: { width: 110, overflow: "truncate" } },
      series: [
        { type: "bar", data: rows.map((row) => ({ value: 100 * row.gain, itemStyle: { color: row.gain < 0 ? COLOURS.baseline : COLOURS.gain, opacity: 0.55 } })), barMaxWidth: 14,
          markLine: { symbol: "none", silent: true, label: { show: false }, lineStyle: { color: "#888", type: "solid" }, data: [{ xAxis: 0 }] } },
        { type: "custom", z: 3, renderItem: errorBar, encode: { x: [0, 2, 3], y: 1 }, data: rows.map((row, index) => [100 * row.gain, index, row.interval ? 100 * row.interval.low : NaN, row.interval ? 100 * row.interval.high : NaN]) },
      ],
    },
  };
}

/** @param {any} _ @param {any} api */
function errorBar(_, api) {
  const index = api.value(1);
  const [x, y] = api.coord([api.value(0), index]);
  const style = { stroke: "#888", lineWidth: 2 };
  const dot = { type: "circle", shape: { cx: x, cy: y, r: 4 }, style: { fill: api.value(0) < 0 ? COLOURS.baseline : COLOURS.gain } };
  if (Number.isNaN(api.value(2))) return { type: "group", children: [dot] };
  const [low] = api.coord([api.value(2), index]), [high] = api.coord([api.value(3), index]);
  const line = (/** @type {number} */ x1, /** @type {number} */ y1, /** @type {number} */ x2, /** @type {number} */ y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style });
  return { type: "group", children: [line(low, y, high, y), line(low, y - 5, low, y + 5), line(high, y - 5, high, y + 5), dot] };
}

/** Each pair as a line from the student alone to the student. @param {NonNullable<Report["comparison"]>} comparison @returns {{option: any, label: string}} */
export function seedChart({ pairs, gain, seed_interval: interval }) {
  const mean = (/** @type {"baseline" | "student"} */ role) => (100 * pairs.reduce((sum, pair) => sum + pair[role], 0)) / pairs.length;
  const ends = (/** @type {string} */ name, /** @type {number} */ from, /** @type {number} */ to, /** @type {any} */ style) => ({ type: "line", name, data: [from, to], symbolSize: 8, labelLayout: { moveOverlap: "shiftY" }, ...style });
  return {
    label: `Pairs of runs: ${pairs.map((pair) => `seed ${pair.seed} from ${points(pair.baseline)} to ${points(pair.student)}`).join("; ")}. Mean gain ${signed(gain)}${interval ? `, ${range(interval)} over seeds` : ""}`,
    option: {
      legend: { top: 0, left: 0, type: "scroll" },
      grid: { right: 90 },
      tooltip: { trigger: "axis", valueFormatter: (/** @type {number} */ value) => value.toFixed(1) },
      xAxis: { type: "category", data: ["student alone", "student"], boundaryGap: true },
      yAxis: { type: "value", scale: true },
      series: [
        ...pairs.map((pair, index) => ends(`seed ${pair.seed}`, 100 * pair.baseline, 100 * pair.student, {
          color: PALETTE[index % PALETTE.length], lineStyle: { width: 1.5 },
          endLabel: { show: pairs.length < 8, formatter: signed(pair.gain), color: "inherit" },
        })),
        ...(pairs.length > 1 ? [ends("mean", mean("baseline"), mean("student"), { color: "#888", lineStyle: { width: 3, type: "dashed" } })] : []),
      ],
    },
  };
}
