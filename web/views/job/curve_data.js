// @ts-check
/** Metric curves of a run group: loaded once, then only what is new, and turned into lines for a chart. */
import { get } from "../../api.js";
import { useEffect, useRef, useState } from "../../html.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */
/** @typedef {import("./live.js").LiveJob} LiveJob */
/** @typedef {{x: number[], y: (number | null)[]}} Points */
/** @typedef {{next: number, series: Record<string, Points>}} Curves curves of one job by metric */
/** @typedef {{x: number, mean: number | null, low: number, high: number}[]} Line mean and range over the seeds */

/** Points of a curve that one request brings; a live curve grows to twice as many, then it is loaded again, thinned out. */
const POINTS = 600;
/** Seconds between looks at other runs of the group, which send no events here. */
const POLL_SECONDS = 3;

/**
 * Return the curves by job id, kept current while a job runs.
 * @param {Job[]} jobs @param {string[]} keys @param {string} x @param {LiveJob} live the stream of the first job
 * @returns {{curves: Record<string, Curves> | null, error: any}}
 */
export function useCurves(jobs, keys, x, live) {
  const [state, setState] = useState(/** @type {{curves: Record<string, Curves> | null, error: any}} */ ({ curves: null, error: null }));
  const current = useRef(jobs);
  current.current = jobs;
  const gaps = live.gaps.value;

  useEffect(() => {
    const abort = new AbortController();
    /** @type {Record<string, Curves>} */
    let curves = {};
    let isChanged = true, timer = 0, tick = 0;
    /** Ids of the jobs that still ran at the last look: these have something new at most. */
    let open = new Set(current.current.map((job) => job.id));
    const stop = live.listen((type) => {
      if (type === "rewound") delete curves[current.current[0].id];
      isChanged ||= ["metric", "rewound", "end"].includes(type);
    });

    async function update() {
      const isDue = (/** @type {Job} */ job, /** @type {number} */ index) => !curves[job.id] || (index ? open.has(job.id) && tick % POLL_SECONDS === 0 : isChanged);
      const due = current.current.filter(isDue);
      if (tick++ % POLL_SECONDS === 0) open = new Set(current.current.filter((job) => !job.is_terminal).map((job) => job.id));
      isChanged = false;
      try {
        const loaded = await Promise.all(due.map(async (job) => [job.id, await load(job.id, curves[job.id], keys, x, abort.signal)]));
        curves = { ...curves, ...Object.fromEntries(loaded) };
        if (loaded.length && !abort.signal.aborted) setState({ curves, error: null });
      } catch (error) {
        if (!abort.signal.aborted) setState((before) => ({ ...before, error }));
        isChanged = true;
      }
      if (!abort.signal.aborted) timer = setTimeout(update, 1000);
    }
    update();
    return () => { abort.abort(); clearTimeout(timer); stop(); };
  }, [jobs.map((job) => job.id).join(), keys.join(), x, gaps]);
  return state;
}

/** Return the curves of a job, with what is new since `before`. @param {string} id @param {Curves | undefined} before @param {string[]} keys @param {string} x @param {AbortSignal} abort @returns {Promise<Curves>} */
async function load(id, before, keys, x, abort) {
  const answer = await get(`/jobs/${id}/metrics`, { keys: keys.join(), x, since: before?.next, max_points: POINTS }, abort);
  /** @type {Record<string, Points>} */
  const series = { ...before?.series };
  for (const { key, x: xs, y } of answer.series) {
    const old = series[key];
    // Steps that come again follow a rewind; a curve that has grown long is thinned out by the service.
    if (old && (xs[0] < /** @type {number} */ (old.x.at(-1)) || old.x.length + xs.length > 2 * POINTS)) return load(id, undefined, keys, x, abort);
    series[key] = old ? { x: [...old.x, ...xs], y: [...old.y, ...y] } : { x: xs, y };
  }
  return { next: answer.next_since, series };
}

/** Average points of the same x, such as all steps of an epoch. @param {Points} points @returns {Points} */
export function grouped({ x, y }) {
  /** @type {Map<number, number[]>} */
  const groups = new Map();
  x.forEach((at, index) => {
    const value = y[index];
    if (value !== null) groups.set(at, [...(groups.get(at) ?? []), value]);
  });
  const average = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return { x: [...groups.keys()], y: [...groups.values()].map(average) };
}

/** Exponential moving average, corrected for its start as in TensorBoard. @param {Points} points @param {number} weight 0 to 1 @returns {Points} */
export function smoothed({ x, y }, weight) {
  let sum = 0, total = 0;
  return {
    x, y: y.map((value) => {
      if (value === null) return null;
      sum = weight * sum + (1 - weight) * value;
      total = weight * total + (1 - weight);
      return sum / total;
    }),
  };
}

/** Mean, minimum and maximum over the runs that reach a point; between their values they are interpolated. @param {Points[]} runs @returns {Line} */
export function combined(runs) {
  const defined = runs.map(({ x, y }) => {
    const present = x.map((at, index) => [at, y[index]]).filter(([, value]) => value !== null);
    return { x: present.map(([at]) => /** @type {number} */ (at)), y: present.map(([, value]) => /** @type {number} */ (value)) };
  }).filter((run) => run.x.length);
  if (defined.length < 2) return (defined[0] ?? { x: [], y: [] }).x.map((x, index) => ({ x, mean: defined[0].y[index], low: defined[0].y[index], high: defined[0].y[index] }));
  const grid = [...new Set(defined.flatMap((run) => run.x))].sort((a, b) => a - b);
  const columns = defined.map((run) => interpolated(run, grid));
  return grid.map((x, index) => {
    const values = columns.filter((_, run) => x >= defined[run].x[0] && x <= /** @type {number} */ (defined[run].x.at(-1))).map((column) => column[index]);
    return { x, mean: values.reduce((sum, value) => sum + value, 0) / values.length, low: Math.min(...values), high: Math.max(...values) };
  });
}

/** @param {{x: number[], y: number[]}} run @param {number[]} grid ascending */
function interpolated({ x, y }, grid) {
  let index = 0;
  return grid.map((at) => {
    while (index < x.length - 2 && x[index + 1] < at) index++;
    const next = Math.min(index + 1, x.length - 1);
    const part = x[next] === x[index] ? 0 : (at - x[index]) / (x[next] - x[index]);
    return y[index] + Math.min(1, Math.max(0, part)) * (y[next] - y[index]);
  });
}
