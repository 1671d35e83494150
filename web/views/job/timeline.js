// @ts-check
/** The history of a job in plain words, from its events. */
import { plural, points, words } from "../../format.js";
import { capital, detectorOf } from "../../roles.js";

/** @typedef {import("../../types/api").components["schemas"]["Event"]} Event */
/** @typedef {{at: string, text: string, seconds: number | null, kind: "wait" | "work" | "mark" | "bad"}} Entry `seconds` is how long it lasted; null for a moment or what still lasts. */

const PHASES = {
  checking: "Checks the spec and the data set", loading: "Loads the detectors", probing: "Measures time and memory of a step",
  "evaluating the teacher": "Evaluates the teacher", calibrating: "Calibrates the weights of the terms", training: "Trains",
  exporting: "Writes the files", matching: "Matches the detections of both runs",
  resampling: "Resamples the validation images", drawing: "Draws the pictures", comparing: "Compares the exported file with the student",
};

/**
 * Return the entries of the history; runs of checkpoints and files are one entry each.
 * @param {Event[]} events @param {{kind: string, parent_id: string | null, attempts: {number: number, worker: string}[]}} job
 */
export function timeline(events, job) {
  const workers = new Map(job.attempts.map((attempt) => [attempt.number, attempt.worker]));
  /** @type {Entry[]} */
  const entries = [];
  let open = /** @type {Entry | null} */ (null);
  let group = { type: "", count: 0, entry: /** @type {Entry | null} */ (null) };

  for (const event of events) {
    const entry = describe(event, workers, job);
    if (!entry) continue;
    if (event.type === "checkpoint" || event.type === "artifact") {
      if (group.type === event.type && group.entry) {
        group.count++;
        group.entry.text = saved(event, group.count);
        continue;
      }
      group = { type: event.type, count: 1, entry };
    }
    if (event.type === "phase" || event.type === "status") {
      if (open) open.seconds = (Date.parse(event.at) - Date.parse(open.at)) / 1000;
      group = { type: "", count: 0, entry: null };
      open = entry.kind === "wait" || entry.kind === "work" ? entry : null;
    }
    entries.push(entry);
  }
  return entries;
}

/** @param {Event} event @param {Map<number, string>} workers @param {{kind: string, parent_id: string | null}} job @returns {Entry | null} */
function describe(event, workers, job) {
  const detector = detectorOf(job);
  const data = /** @type {any} */ (event.data);
  const entry = (/** @type {string} */ text, /** @type {Entry["kind"]} */ kind = "mark") => ({ at: event.at, text, seconds: null, kind });
  const by = data.by ? ` by ${data.by}` : "";
  switch (event.type) {
    case "status": return status(event, data, by, workers, entry);
    case "phase": return entry(phase(data.phase, job.kind, detector), "work");
    case "rewound": return data.to_step ? entry(`Continues from step ${data.to_step}`) : null;
    case "evaluation": return entry(`${data.role === "teacher" ? "Teacher" : `${capital(detector)}${data.step ? ` at step ${data.step}` : ""}`}: mAP ${points(data.metrics.bbox_mAP)} on ${plural(data.images, "image")}`);
    case "checkpoint": case "artifact": return entry(saved(event, 1));
    case "changed": return entry(`Changed ${Object.keys(data).filter((name) => name !== "by" && name !== "request_id").join(", ")}${by}`);
    case "cleaned": return entry(`Removed ${(data.contents ?? []).map(words).join(", ")}${by}`);
    default: return event.type.endsWith("_requested") ? entry(`A ${words(event.type.replace("_requested", ""))} is requested${by}`) : null;
  }
}

/** @param {string} name @param {string} kind @param {string} detector */
function phase(name, kind, detector) {
  if (name === "evaluating") return `Evaluates the ${detector}`;
  if (name === "calibrating" && kind === "export") return "Calibrates the INT8 file";
  return PHASES[/** @type {keyof typeof PHASES} */ (name)] ?? words(name);
}

/** @param {Event} event @param {any} data @param {string} by @param {Map<number, string>} workers @param {(text: string, kind?: Entry["kind"]) => Entry} entry */
function status(event, data, by, workers, entry) {
  const why = data.message ? `: ${data.message}` : data.reason ? `: ${words(data.reason)}` : "";
  switch (data.status) {
    case "queued": return entry(`${event.seq === 1 ? `Submitted${by}` : `Back in the queue${by && `, requested${by}`}`}${why}, waits`, "wait");
    case "running": return entry(`Attempt ${event.attempt} starts${workers.has(event.attempt) ? ` on ${workers.get(event.attempt)}` : ""}`, "work");
    case "paused": return entry(`Paused${by}${why}`, "wait");
    default: return entry(`${data.status === "succeeded" ? "Succeeded" : data.status === "failed" ? "Failed" : "Cancelled"}${by}${data.reason === "completed" ? "" : why}`, data.status === "failed" ? "bad" : "mark");
  }
}

/** @param {Event} event @param {number} count */
function saved(event, count) {
  const data = /** @type {any} */ (event.data);
  if (event.type === "checkpoint") return count > 1 ? `Saved ${plural(count, "checkpoint")}, the last at step ${data.step}` : `Saved a ${data.kind} checkpoint at step ${data.step}`;
  return count > 1 ? `Wrote ${plural(count, "file")}, the last ${data.name}` : `Wrote ${data.name}`;
}
