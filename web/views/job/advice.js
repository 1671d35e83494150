// @ts-check
/** What to do next, by the facts of a report. Each sentence names the fact that it rests on. */
import { points, signed } from "../../format.js";

/** @typedef {import("../../types/api").components["schemas"]["frs__evaluation__report__Report"]} Report */

/** Pairs of runs from which on the verdict follows the interval over seeds (`MIN_SEEDS` of the service). */
const MIN_SEEDS = 3;
/** A rise of the mAP between the last two evaluations above which the training had not levelled off. */
const STILL_RISING = 0.01;
/** Part of the gap to the teacher above which the teacher is the limit. */
const MOST_OF_GAP = 0.8;

/**
 * @param {Report} report @param {any[]} evaluations of the student's job @param {string | null} endReason
 * @returns {{title: string, text: string}[]}
 */
export function advice(report, evaluations, endReason) {
  const scores = Object.fromEntries(report.rows.map((row) => [row.role, row.metrics.bbox_mAP]));
  return [length(evaluations, endReason), teacher(report, scores), seeds(report), terms(report)].filter((item) => item !== null);
}

/** @param {Report} report */
function seeds(report) {
  const { comparison, verdict } = report;
  if (!comparison) return null;
  const pairs = comparison.pairs.length;
  if (pairs < MIN_SEEDS) {
    return { title: "More seeds", text: `The verdict rests on ${pairs === 1 ? "one pair of runs" : `${pairs} pairs of runs`}; another seed may give another gain. Start a similar job with \`baseline: {seeds: ${MIN_SEEDS}}\` to measure how much the gain varies.` };
  }
  if (verdict !== "no_difference") return null;
  return { title: "More seeds", text: `The interval over ${pairs} seeds includes 0. More seeds make it narrower; ${comparison.gain > 0 ? "the mean gain is positive, so they may show an improvement" : "the mean gain is not positive, so they may as well confirm that there is none"}.` };
}

/** @param {Report} report @param {Record<string, number | null | undefined>} scores */
function teacher(report, scores) {
  const { teacher, baseline, student } = scores;
  if (typeof teacher !== "number") return null;
  if (typeof baseline === "number" && teacher <= baseline) {
    return { title: "Stronger teacher", text: `The teacher (${points(teacher)}) is not better than the student alone (${points(baseline)}): it has little to teach. Train it longer or take a larger one.` };
  }
  if (typeof student === "number" && report.gap_closed !== null && report.gap_closed >= MOST_OF_GAP) {
    return { title: "Stronger teacher", text: `The student (${points(student)}) is close to its teacher (${points(teacher)}) already: a further gain needs a better teacher.` };
  }
  const interval = report.comparison?.image_interval;
  if (typeof baseline === "number" && interval && report.verdict === "no_difference" && teacher - baseline < (interval.high - interval.low) / 2) {
    return { title: "Weak teacher", text: `The teacher is only ${points(teacher - baseline)} points above the student alone, less than the uncertainty of the gain. A better teacher leaves more to gain.` };
  }
  return null;
}

/** @param {any[]} evaluations @param {string | null} endReason */
function length(evaluations, endReason) {
  if (endReason === "stopped_early" || endReason === "time_limit") {
    return { title: "Longer training", text: `The run ended before its last step (${endReason === "time_limit" ? "time limit" : "stopped by a user"}): run it to the end for a fair comparison.` };
  }
  const [before, last] = evaluations.filter((evaluation) => evaluation.role === "student").slice(-2);
  const rise = (last?.metrics.bbox_mAP ?? NaN) - (before?.metrics.bbox_mAP ?? NaN);
  if (!(rise > STILL_RISING)) return null;
  return { title: "Longer training", text: `The student's mAP still rose by ${signed(rise).replace("+", "")} points from step ${before.step} to step ${last.step}. Longer training may raise it further; the baseline may rise as well, so compare again.` };
}

/** @param {Report} report */
function terms(report) {
  if (report.verdict !== "worse") return null;
  return { title: "Weaker distillation", text: `The student is worse than alone. See under Curves whether the terms' gradients exceed the task's by far; a lower \`distillation.feature_ratio\` or another method gives the task more weight.` };
}
