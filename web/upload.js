// @ts-check
/** Uploads with progress. They use XMLHttpRequest, because fetch does not report how much of a body was sent. */
import { address, ApiError, apiKey, getAll, signOut } from "./api.js";
import { toast } from "./components/toast.js";
import { useEffect, useRef, useState } from "./html.js";

/** Larger files are sent without their SHA-256: the browser would have to hold them in memory. */
const MAX_HASHED_BYTES = 256_000_000;

/** @typedef {{sent: number, total: number}} Progress */

/**
 * Send a file as the body of a POST request and return the JSON of the response.
 * @param {string} path @param {Blob} file
 * @param {{type: string, query?: import("./api.js").Query, onProgress?: (progress: Progress) => void, abort?: AbortSignal}} options
 * @returns {Promise<any>}
 */
export async function upload(path, file, { type, query, onProgress, abort }) {
  const sha256 = await hash(file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path, query));
    request.setRequestHeader("Authorization", `Bearer ${apiKey.value}`);
    request.setRequestHeader("Content-Type", type);
    if (sha256) request.setRequestHeader("X-Content-SHA256", sha256);
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress?.({ sent: event.loaded, total: event.total });
    request.onload = () => {
      if (request.status < 300) return resolve(request.response);
      const problem = request.response ?? {};
      if (request.status === 401) signOut(problem.detail || "The API key was rejected.");
      reject(new ApiError(request.status, problem));
    };
    request.onerror = () => reject(new ApiError(0, {
      code: "upload_broken_off",
      detail: "The connection broke during the upload.",
      hint: "Send the file again. If it breaks again, the file may be larger than the service accepts (FRS_MAX_UPLOAD_BYTES).",
    }));
    request.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
    abort?.addEventListener("abort", () => request.abort());
    if (abort?.aborted) return reject(new DOMException("The upload was cancelled.", "AbortError"));
    request.send(file);
  });
}

/** SHA-256 of a file in hex; null for a large one, and where the page is not served over HTTPS or from this machine. @param {Blob} file */
async function hash(file) {
  if (!crypto.subtle || file.size > MAX_HASHED_BYTES) return null;
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The state of an upload. `start` returns the JSON of the response; undefined after an error, which is then in `error`.
 * @param {string} path
 */
export function useUpload(path) {
  const [progress, setProgress] = useState(/** @type {Progress | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const abort = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => {
    if (abort.current) toast("The upload was cancelled: its view was left.", "failed");
    abort.current?.abort();
  }, []);

  /** @param {Blob} file @param {string} type @param {import("./api.js").Query} query */
  async function start(file, type, query) {
    abort.current = new AbortController();
    setError(null);
    setProgress({ sent: 0, total: file.size });
    try {
      return await upload(path, file, { type, query, onProgress: setProgress, abort: abort.current.signal });
    } catch (/** @type {any} */ error) {
      if (error.name !== "AbortError") setError(error);
    } finally {
      abort.current = null;
      setProgress(null);
    }
  }
  return { progress, error, setError, start, cancel: () => abort.current?.abort() };
}

/**
 * Return the object of this name; undefined if there is none. Asked before an upload, so that a name in use is reported
 * before the file is sent.
 * @param {"/datasets" | "/detectors"} path @param {string} name
 */
export async function findByName(path, name) {
  return (await getAll(path, { limit: 200 })).find((row) => row.name === name);
}
