// @ts-check
/** Addresses of views: `#/jobs/job_1/curves?x=epoch` is the path ["jobs", "job_1", "curves"] and the query {x: "epoch"}. */
import { signal } from "./html.js";

/** @typedef {{path: string[], query: Record<string, string>}} Route */

/** @returns {Route} */
function parse() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  let parts;
  try {
    parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    parts = [path];
  }
  return { path: parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** The view that is shown. */
export const route = signal(parse());
addEventListener("hashchange", () => {
  const before = route.value.path.join("/");
  route.value = parse();
  if (route.value.path.join("/") !== before) scrollTo(0, 0);
});

/** Return the address of a view. @param {string[]} path @param {Record<string, string | null | undefined>} [query] */
export function href(path, query = {}) {
  const entries = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(/** @type {[string, string][]} */ (entries)).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${search && `?${search}`}`;
}

/** Show a view. @param {string[]} path @param {Record<string, string | null | undefined>} [query] */
export function go(path, query) {
  location.hash = href(path, query);
}

/** Change entries of the query and keep the others; a null removes an entry. @param {Record<string, string | null | undefined>} changes */
export function setQuery(changes) {
  history.replaceState(null, "", href(route.value.path, { ...route.value.query, ...changes }));
  route.value = parse();
}
