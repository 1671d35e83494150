// @ts-check
/** Filters and grouping of the list of jobs. Their state is the address. */
import { html, useState } from "../../html.js";
import { route, setQuery } from "../../router.js";

/** @typedef {import("../../types/api").components["schemas"]["Dataset"]} Dataset */

export const STATUSES = ["running", "queued", "paused", "failed", "succeeded", "cancelled"];
const KINDS = ["distill", "train", "quantize", "evaluate", "export", "compare"];

/** @param {{datasets: Dataset[]}} props */
export function Filters({ datasets }) {
  const { status = "", kind = "", tag = "", dataset = "", name = "", group = "", after = "", before = "" } = route.value.query;
  return html`
    <form class="filters" role="search" aria-label="Filters of the jobs" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <${Text} label="Name" name="name" value=${name} hint="part of it" />
      <${StatusButtons} chosen=${status.split(",").filter(Boolean)} />
      <${Select} label="Kind" name="kind" value=${kind} options=${[["", "all kinds"], ...KINDS.map((name) => [name, name])]} />
      <${Select} label="Data set" name="dataset" value=${dataset}
        options=${[["", "all data sets"], ...(dataset && !datasets.some((item) => item.name === dataset) ? [[dataset, dataset]] : []), ...datasets.map((item) => [item.name, item.name])]} />
      <${Text} label="Tag" name="tag" value=${tag} hint="exact tag" />
      <label>Submitted from <input type="date" value=${after} onChange=${change("after")} /></label>
      <label>before <input type="date" value=${before} onChange=${change("before")} /></label>
      <${Select} label="Group by" name="group" value=${group} options=${[["", "nothing"], ["dataset", "data set"], ["run", "run group"]]} />
    </form>`;
}

/** @param {string} name */
const change = (name) => (/** @type {any} */ event) => setQuery({ [name]: event.target.value });

/** @param {{chosen: string[]}} props */
function StatusButtons({ chosen }) {
  const toggle = (/** @type {string} */ status) => {
    const next = chosen.includes(status) ? chosen.filter((item) => item !== status) : [...chosen, status];
    setQuery({ status: next.join(",") });
  };
  return html`<fieldset class="toggles"><legend class="visually-hidden">Status</legend>
    ${STATUSES.map((status) => html`<button type="button" key=${status} aria-pressed=${chosen.includes(status)} onClick=${() => toggle(status)}>${status}</button>`)}
  </fieldset>`;
}

/** @param {{label: string, name: string, value: string, options: string[][]}} props */
const Select = ({ label, name, value, options }) => html`
  <label>${label} <select value=${value} onChange=${change(name)}>
    ${options.map(([option, text]) => html`<option key=${option} value=${option} selected=${option === value}>${text}</option>`)}
  </select></label>`;

/** A filter by text that is applied when the input is left or Enter is pressed. @param {{label: string, name: string, value: string, hint: string}} props */
function Text({ label, name, value, hint }) {
  const [draft, setDraft] = useState(/** @type {string | null} */ (null));
  const apply = () => {
    if (draft !== null) setQuery({ [name]: draft.trim() });
    setDraft(null);
  };
  return html`<label>${label} <input value=${draft ?? value} placeholder=${hint} size="10" onInput=${(/** @type {any} */ event) => setDraft(event.target.value)}
    onBlur=${apply} onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && apply()} /></label>`;
}
