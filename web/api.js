// @ts-check
/**
 * The HTTP client of the page. It sends the API key of this browser tab with each request, and never in an address.
 */
import { signal } from "./html.js";

const KEY = "frs-api-key";

/** The API key of this tab; null when signed out. */
export const apiKey = signal(/** @type {string | null} */ (sessionStorage.getItem(KEY)));
/** Why the tab was signed out, for the sign-in form. */
export const signOutReason = signal("");

/** Keep the key until the tab is closed. @param {string} key */
export function signIn(key) {
  sessionStorage.setItem(KEY, key);
  signOutReason.value = "";
  apiKey.value = key;
}

/** Forget the key. @param {string} [reason] */
export function signOut(reason = "") {
  sessionStorage.removeItem(KEY);
  signOutReason.value = reason;
  apiKey.value = null;
}

/** An answer of the API other than success: `code`, `message`, `hint` and the errors by field of its problem document. */
export class ApiError extends Error {
  /** @param {number} status @param {any} problem */
  constructor(status, problem) {
    super(problem.detail || problem.title || `The service answered with status ${status}.`);
    this.status = status;
    /** @type {string} */
    this.code = problem.code || "";
    /** @type {string} */
    this.hint = problem.hint || "";
    /** @type {{field: string, message: string, hint?: string}[]} */
    this.errors = (problem.errors || []).map((/** @type {any} */ item) => ({ ...item, field: item.loc ?? item.field ?? "" }));
    /** @type {string} */
    this.requestId = problem.request_id || "";
  }
}

/** @typedef {Record<string, string | number | boolean | null | undefined | (string | number)[]>} Query */

/** Return the address of a path of the API, relative to the page. Throws ApiError for one that leads elsewhere, such as by `..`. @param {string} path @param {Query} [query] */
export function address(path, query = {}) {
  const base = new URL(".", document.baseURI);
  const url = new URL(base.href + path.replace(/^\//, ""));
  if (path.split(/[/\\]/).some((part) => /^(\.|%2e){1,2}$/i.test(part))) throw new ApiError(404, { code: "not_found", detail: "There is no such object." });
  for (const [name, value] of Object.entries(query)) {
    if (value === null || value === undefined || value === "") continue;
    for (const item of Array.isArray(value) ? value : [value]) url.searchParams.append(name, String(item));
  }
  return url;
}

/**
 * Send a request and return the response. Throws ApiError for any status but success, and if the service cannot be
 * reached. A rejected key signs the tab out.
 * @param {string} method @param {string} path
 * @param {{query?: Query, json?: unknown, body?: BodyInit, headers?: Record<string, string>, signal?: AbortSignal,
 *   key?: string | null}} [options]
 */
export async function send(method, path, { query, json, body, headers = {}, signal, key = apiKey.value } = {}) {
  if (json !== undefined) {
    body = JSON.stringify(json);
    headers = { "Content-Type": "application/json", ...headers };
  }
  let response;
  try {
    response = await fetch(address(path, query), {
      method, body, signal, headers: { Authorization: `Bearer ${key}`, ...headers },
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, { code: "unreachable", detail: "The service cannot be reached.", hint: method === "GET" ? "The page retries by itself." : "Try again." });
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401 && key === apiKey.value) signOut(problem.detail || "The API key was rejected.");
  throw new ApiError(response.status, problem);
}

/** Return the JSON of a GET request. @param {string} path @param {Query} [query] @param {AbortSignal} [signal] @param {string | null} [key] @returns {Promise<any>} */
export async function get(path, query, signal, key) {
  return (await send("GET", path, { query, signal, key })).json();
}

/** Return the JSON of a POST request; null without content. @param {string} path @param {unknown} [json] @param {Record<string, string>} [headers] @returns {Promise<any>} */
export async function post(path, json, headers) {
  const response = await send("POST", path, { json, headers });
  return response.status === 204 ? null : response.json();
}

/** Return all entries of a paged list, at most `limit`. @param {string} path @param {Query} [query] @param {number} [limit] */
export async function getAll(path, query = {}, limit = 1000) {
  const rows = [];
  let cursor = null;
  do {
    const page = await get(path, { ...query, cursor });
    rows.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor && rows.length < limit);
  return rows;
}

/** Download an artifact through the API, which needs the key, and save it as a file. @param {string} path @param {string} name @param {Query} [query] */
export async function download(path, name, query) {
  save(name, await (await send("GET", path, { query })).blob());
}

/** Save a blob as a file. @param {string} name @param {Blob} blob */
export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Return a random `Idempotency-Key`, so that a repeated request is carried out once. */
export function idempotencyKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
