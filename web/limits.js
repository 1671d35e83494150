// @ts-check
/** Limits of the API that views keep to. */

/** Number of jobs that `GET /compare` takes. */
export const MAX_COMPARED = 16;

/** Threads that want to run per CPU above which a latency was measured on a busy machine; `frs.cpu_load.BUSY`. */
const BUSY_LOAD = 1.25;

/** Whether a time was measured under that load of the machine. @param {number | null | undefined} load */
export const isBusy = (load) => (load ?? 0) > BUSY_LOAD;
