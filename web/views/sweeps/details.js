// @ts-check
/** One sweep: verdict, settings by rank, trials, and its actions. */
import { get, post, send } from "../../api.js";
import { ActionButton, Ago, Facts, JobLink, Loading, Problem, Status } from "../../components/basics.js";
import { Chart } from "../../components/chart.js";
import { Prose } from "../../components/prose.js";
import { Table } from "../../components/table.js";
import { attempt } from "../../components/toast.js";
import { NONE, number, plural, points, range, signed, words } from "../../format.js";
import { html, useMemo } from "../../html.js";
import { useResource } from "../../resource.js";
import { go, href, route, setQuery } from "../../router.js";
import { gainChart } from "../job/verdict_charts.js";

/** @typedef {import("../../types/api").components["schemas"]["Sweep"]} Sweep */
/** @typedef {import("../../types/api").components["schemas"]["SweepDetails"]} SweepDetails */
/** @typedef {import("../../types/api").components["schemas"]["SettingRow"]} SettingRow */
/** @typedef {import("../../types/api").components["schemas"]["SweepTrial"]} Trial */

const REFRESH_SECONDS = 5;
const ACTIVE = ["searching", "confirming"];
/** The status of a job whose sign and colour a sweep's status has. */
const AS_JOB = { searching: "running", confirming: "running", stopped: "paused", succeeded: "succeeded", failed: "failed" };

/** @param {{sweep: Sweep | SweepDetails}} props */
export function State({ sweep }) {
  return html`<span class=${`status ${AS_JOB[/** @type {keyof typeof AS_JOB} */ (sweep.status)] ?? ""}`}>${words(sweep.status)}</span>`;
}

/** @param {{id: string}} props */
export function Details({ id }) {
  const sweep = useResource((signal) => get(`/sweeps/${id}`, {}, signal), [id], REFRESH_SECONDS);
  return html`<${Loading} resource=${sweep}>${(/** @type {SweepDetails} */ data) => html`
    <h1>${data.name || data.id}</h1>
    <div class="row"><${State} sweep=${data} /><${Actions} sweep=${data} reload=${sweep.reload} /></div>
    ${data.error && html`<${Problem} error=${data.error} />`}
    <div class="grid"><${Verdict} sweep=${data} /><${Budget} sweep=${data} /></div>
    <${Settings} sweep=${data} />
    <${Trials} sweep=${data} />`}<//>`;
}

/** @param {{sweep: SweepDetails, reload: () => void}} props */
function Actions({ sweep, reload }) {
  const act = async (/** @type {string} */ name, /** @type {string} */ done) => {
    if (await attempt(() => post(`/sweeps/${sweep.id}/${name}`), done)) reload();
  };
  const remove = async () => {
    if (await attempt(() => send("DELETE", `/sweeps/${sweep.id}`), "The sweep is deleted.")) go(["sweeps"]);
  };
  return html`
    ${ACTIVE.includes(sweep.status) && html`<${ActionButton} confirm="Stop the sweep? No more jobs are posted, and those that have not ended are paused."
      onClick=${() => act("stop", "The sweep is stopped.")}>Stop<//>`}
    ${["stopped", "failed"].includes(sweep.status) && html`<${ActionButton} onClick=${() => act("resume", "The sweep continues.")}>Resume<//>`}
    <a class="button" href=${href(["jobs"], { tag: sweep.id })}>Its jobs</a>
    <a class="button" href=${href(["sweeps", "new"], { from: sweep.id })}>Start a similar sweep</a>
    ${!ACTIVE.includes(sweep.status) && html`<${ActionButton} class="danger" confirm="Delete the sweep? Its jobs are kept; those that have not ended are cancelled." onClick=${remove}>Delete<//>`}`;
}

/** @param {{sweep: SweepDetails}} props */
function Verdict({ sweep }) {
  const { confirmation, best } = sweep;
  if (!confirmation) return html`<section class="card"><h2>Verdict follows</h2><p>When the search has ended, the best setting and its baseline are trained on ${plural(sweep.spec.confirm_seeds, "new seed")}.</p></section>`;
  const { comparison, interval, verdict } = confirmation;
  return html`<section class="card verdict">
    <h2>${verdict ? html`<span class="capital">${words(verdict)}</span>` : "Verdict follows"}</h2>
    ${comparison && interval && html`<p><span class="number">${signed(comparison.gain)}</span> points of mAP over the baseline, ${range(interval)} over ${confirmation.verdict_by}</p>`}
    <${Facts} items=${[
      ["Best setting", best ? Object.entries(best.values).map(([field, value]) => `${field} ${JSON.stringify(value)}`).join(", ") : NONE],
      ["mAP of the student", points(confirmation.mAP)],
      ["Seeds", `${seeds(confirmation.first_seed, confirmation.seeds)}, not used for the choice`],
      ["Job", confirmation.job_id ? html`<${JobLink} id=${confirmation.job_id} name="report and student" />` : "deleted"],
    ]} />
    <p class="hint covers"><strong>What it covers:</strong> <${Prose} text=${confirmation.caveat} /></p>
  </section>`;
}

/** "3 to 5", or "3". @param {number} first @param {number} number */
const seeds = (first, number) => (number === 1 ? first : `${first} to ${first + number - 1}`);

/** @param {{sweep: SweepDetails}} props */
function Budget({ sweep }) {
  const { spec } = sweep;
  const of = (/** @type {number | null} */ limit) => (limit === null ? "" : ` of at most ${number(limit)}`);
  return html`<section class="card"><h2>Search</h2><${Facts} items=${[
    ["Strategy", `${spec.strategy}, ${plural(sweep.settings, "setting")}, ${plural(spec.seeds, "tuning seed")} each`],
    ["Trials", `${number(sweep.trials_ended)} of ${number(sweep.trials_posted)} posted have ended${sweep.trials_failed ? `, ${number(sweep.trials_failed)} without a result` : ""}${spec.max_jobs ? `; at most ${number(spec.max_jobs)}` : ""}`],
    ["Running time", `${number(Math.round(sweep.minutes))} min${of(spec.max_minutes ?? null)}`],
    ["Search ended by", sweep.search_end ? words(sweep.search_end) : NONE],
    ["Created", html`<${Ago} at=${sweep.created_at} />`],
  ]} /></section>`;
}

/** @param {{sweep: SweepDetails}} props */
function Settings({ sweep }) {
  const fields = Object.keys(sweep.spec.space);
  const name = (/** @type {SettingRow} */ row) => [...fields.map((field) => `${field.split(".").pop()} ${JSON.stringify(row.values[field])}`), ...(row.epochs ? [`${row.epochs} epochs`] : [])].join(", ");
  const chart = useMemo(() => gainChart(
    sweep.table.filter((row) => row.mAP !== null).map((row) => ({ name: name(row), gain: /** @type {number} */ (row.mAP), interval: row.interval })), "mAP in points, mean over the tuning seeds",
  ), [sweep.table]);
  const shown = sweep.table.filter((row) => row.mAP !== null).length;
  const isBest = (/** @type {SettingRow} */ row) => sweep.best?.setting === row.setting && sweep.best.epochs === row.epochs;
  /** @type {import("../../components/table.js").Column<SettingRow>[]} */
  const columns = [
    { name: "setting", title: "Setting", numeric: true, sort: (row) => row.setting, cell: (row) => (isBest(row) ? html`<strong title="the chosen setting">${row.setting} ★</strong>` : row.setting) },
    ...fields.map((field) => ({ name: field, title: html`<code>${field}</code>`, sort: (/** @type {SettingRow} */ row) => row.values[field], cell: (/** @type {SettingRow} */ row) => JSON.stringify(row.values[field]) })),
    { name: "epochs", title: "Epochs", numeric: true, sort: (row) => row.epochs, cell: (row) => number(row.epochs ?? sweep.spec.spec.schedule.epochs) },
    { name: "seeds", title: "Seeds", numeric: true, cell: (row) => number(row.seeds) },
    { name: "mAP", title: "mAP", numeric: true, sort: (row) => row.mAP, cell: (row) => points(row.mAP) },
    { name: "interval", title: "95 % interval", cell: (row) => (row.interval ? `${points(row.interval.low)} to ${points(row.interval.high)}` : NONE) },
  ];
  return html`<section class="card">
    <h2>Settings by rank</h2>
    ${shown > 1 && html`<${Chart} ...${chart} height=${60 + 26 * shown} />`}
    <${Table} label="Settings" columns=${columns} rows=${sweep.table} rowKey=${(/** @type {SettingRow} */ row) => `${row.setting}-${row.epochs}`} empty="No trial is posted yet."
      order=${route.value.query.settings ?? ""} onOrder=${(/** @type {string} */ order) => setQuery({ settings: order })} />
    <p class="hint">The mAP of the chosen setting on its tuning seeds is too high on average, because it was chosen for it. The verdict uses new seeds.</p>
  </section>`;
}

/** @param {{sweep: SweepDetails}} props */
function Trials({ sweep }) {
  return html`<section class="card"><h2>Trials</h2>
    <${Table} label="Trials" columns=${TRIAL_COLUMNS} rows=${sweep.trials} rowKey=${(/** @type {Trial} */ row) => String(row.number)} empty="No trial is posted yet."
      order=${route.value.query.order ?? ""} onOrder=${(/** @type {string} */ order) => setQuery({ order })} /></section>`;
}

/** @type {import("../../components/table.js").Column<Trial>[]} */
const TRIAL_COLUMNS = [
  { name: "number", title: "Trial", numeric: true, sort: (row) => row.number, cell: (row) => (row.job_id ? html`<${JobLink} id=${row.job_id} name=${String(row.number)} />` : row.number) },
  { name: "setting", title: "Setting", numeric: true, sort: (row) => row.setting, cell: (row) => row.setting },
  { name: "seed", title: "Seed", numeric: true, sort: (row) => row.seed, cell: (row) => row.seed },
  { name: "status", title: "Status", sort: (row) => row.status, cell: (row) => html`<${Status} status=${row.status} />` },
  { name: "mAP", title: "mAP", numeric: true, sort: (row) => row.mAP, cell: (row) => points(row.mAP) },
  { name: "minutes", title: "Minutes", numeric: true, sort: (row) => row.minutes, cell: (row) => row.minutes.toFixed(1) },
  { name: "error", title: "Error", cell: (row) => (row.error ? html`${row.error.message} ${row.error.hint}` : "") },
];
