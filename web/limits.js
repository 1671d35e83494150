// @ts-check
/** Limits of the API that views keep to. */

/** Number of jobs that `GET /compare` takes. */
export const MAX_COMPARED = 16;
