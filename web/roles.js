// @ts-check
/** What the detector of a job is called. */

/** "student" where it has a teacher or is compared with one that has, else "detector". @param {{kind: string, parent_id: string | null}} job */
export const detectorOf = (job) => (job.kind === "distill" || job.kind === "compare" || job.parent_id ? "student" : "detector");

/** The first letter as a capital. @param {string} text */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
