// @ts-check
/** What would happen if the spec were submitted now: checks, size of the job, and, measured by a worker, time and cost. */
import { get, post } from "../../api.js";
import { ActionButton, Facts, Problem } from "../../components/basics.js";
import { Prose } from "../../components/prose.js";
import { count, duration, milliseconds, NONE, number, plural, words } from "../../format.js";
import { html, useEffect, useState } from "../../html.js";

/** @typedef {import("../../types/api").components["schemas"]["Plan"]} Plan */
/** @typedef {import("../../types/api").components["schemas"]["Probe"]} Probe */
/** @typedef {import("../../types/api").components["schemas"]["Estimate"]} Estimate */
/** @typedef {import("../../types/api").components["schemas"]["Check"]} Check */
/** @typedef {{plan: Plan | null, error: any, isCurrent: boolean}} PlanState `isCurrent`: whether it is the answer to the spec as it is now. */

const PAUSE_MS = 600;
const POLL_MS = 1000;

/** Plan the spec after a pause in typing, once it names a data set and a student. @param {any} spec @returns {PlanState} */
export function usePlan(spec) {
  const content = JSON.stringify(spec);
  const [state, setState] = useState(/** @type {{content: string, plan: Plan | null, error: any}} */ ({ content: "", plan: null, error: null }));
  useEffect(() => {
    let isCurrent = true;
    const timer = setTimeout(async () => {
      if (!spec.dataset || !spec.student) return setState({ content, plan: null, error: null });
      const answer = await post("jobs/plan", spec).then((plan) => ({ plan, error: null }), (error) => ({ plan: null, error }));
      if (isCurrent) setState({ content, ...answer });
    }, PAUSE_MS);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [content]);
  return { plan: state.plan, error: state.error, isCurrent: state.content === content };
}

/** @param {{state: PlanState}} props */
export function PlanPanel({ state }) {
  const { plan, error, isCurrent } = state;
  return html`
    <section class="card" aria-label="Plan" aria-busy=${!isCurrent}>
      <h2>Plan <span class="muted" role="status">${isCurrent ? "" : "checking"}</span></h2>
      ${error && html`<${Problem} error=${error} />`}
      ${plan ? html`
        <${Conclusion} plan=${plan} />
        <${Checks} checks=${plan.checks} />
        <${Facts} items=${[
          ["Training images", number(plan.training_images)], ["Epochs", number(plan.epochs)], ["Training steps", number(plan.steps)],
          ["Jobs", plan.jobs > 1 ? `${plan.jobs}, with baselines, seeds and comparison` : "1"], ["Place in the queue", number(plan.queue_position)],
        ]} />` : !error && html`<p class="empty">Choose a data set and a detector, or start from a <a href="#/recipes">recipe</a>.</p>`}
    </section>`;
}

/** @param {{plan: Plan}} props */
function Conclusion({ plan }) {
  const warnings = plan.checks.filter(({ level }) => level === "warning").length;
  const [name, text] = !plan.ok ? ["bad", "✕ The job would be rejected."] : warnings ? ["warn", `! The job can be submitted, with ${plural(warnings, "warning")}.`] : ["good", "✓ The job can be submitted."];
  return html`<p class=${name}><strong>${text}</strong></p>`;
}

const SIGNS = { error: "✕", warning: "!", info: "✓" };
const CLASSES = { error: "bad", warning: "warn", info: "good" };

/** @param {Check} check */
const isSkipped = (check) => /not (checked|built)/i.test(check.message);

/** @param {{checks: Check[]}} props */
const Checks = ({ checks }) => html`
  <ul class="checks">${checks.map((check) => html`
    <li key=${check.code + check.message}><strong class=${CLASSES[check.level]}><span aria-hidden="true">${isSkipped(check) ? "–" : SIGNS[check.level]}</span> ${words(check.code)}${check.level === "info" ? "" : ` (${check.level})`}:</strong> <${Prose} text=${check.message} /> <span class="muted"><${Prose} text=${check.hint} /></span></li>`)}</ul>`;

/** @typedef {{content: string, probe: Probe | null, error: any}} Measurement */
/** @typedef {Measurement & {isCurrent: boolean, measure: () => Promise<void>}} ProbeState `isCurrent`: whether the measured part of the spec is as it is now. */

/** The newest measurement, kept while other views are shown. @type {Measurement} */
let kept = { content: "", probe: null, error: null };
/** Fields that change neither time nor memory nor cost of the job. */
const NOT_MEASURED = ["name", "tags", "priority", "metadata", "baseline"];

/** @param {any} spec */
const measuredPart = (spec) => JSON.stringify(Object.entries(spec).filter(([name]) => !NOT_MEASURED.includes(name)).sort());

/** Return the newest measurement of time, memory and cost, and the function that lets a worker measure the spec. @param {any} spec @returns {ProbeState} */
export function useProbe(spec) {
  const [measurement, setMeasurement] = useState(kept);
  const { content, probe } = measurement;
  const update = (/** @type {Measurement} */ next) => { kept = next; setMeasurement(next); };
  useEffect(() => {
    if (!probe || probe.status === "succeeded" || probe.status === "failed") return;
    const abort = new AbortController();
    const timer = setTimeout(() => get(`plans/${probe.id}`, {}, abort.signal).then(
      (next) => update({ content, probe: next, error: null }), (error) => !abort.signal.aborted && update({ content, probe: null, error })), POLL_MS);
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [probe]);
  const measure = async () => {
    const content = measuredPart(spec);
    update({ content, probe: null, error: null });
    await post("jobs/plan?probe=true", spec).then((probe) => update({ content, probe, error: null }), (error) => update({ content, probe: null, error }));
  };
  return { ...measurement, isCurrent: content === measuredPart(spec), measure };
}

/** Time, memory and cost as a worker measured them, or what is missing. @param {{state: PlanState, measured: ProbeState, spec: any}} props */
export function ProbePanel({ state, measured, spec }) {
  const { probe, error, isCurrent, measure } = measured;
  const obstacle = whyNotMeasurable(state, spec);
  const isRunning = isCurrent && probe !== null && !probe.result && !probe.error;
  return html`
    <section class="card" aria-label="Time and cost">
      <h2>Time, memory and cost</h2>
      ${!(isCurrent && (probe || error)) && html`<p>Not measured yet${probe?.result ? " for this spec" : ""}. A worker builds the detectors and runs a few training steps; <code>frs plan --probe</code> does the same.</p>`}
      <div class="row"><${ActionButton} disabled=${obstacle !== "" || isRunning} onClick=${measure}>${isCurrent && probe?.result ? "Measure again" : "Measure on a worker"}<//> <span class="hint">${obstacle}</span></div>
      ${isCurrent && error && html`<${Problem} error=${error} />`}
      ${isCurrent && probe && html`<${ProbeResult} probe=${probe} />`}
      ${!isCurrent && probe?.result && html`<details><summary>Measured before, with other settings</summary><${ProbeResult} probe=${probe} /></details>`}
    </section>`;
}

/** Return why a worker cannot measure the spec now; empty if it can. @param {PlanState} state @param {any} spec */
function whyNotMeasurable({ plan, isCurrent, error }, spec) {
  if (!spec.dataset || !spec.student) return "Choose a data set and a detector first.";
  if (!isCurrent) return "The plan is being checked.";
  if (error || !plan?.ok) return "The plan shows what to mend first.";
  return plan.checks.some(({ code }) => code === "waiting_for_detector") ? "The job whose student it uses has not ended: measure after it." : "";
}

/** The expected time in words, for beside the button that submits. @param {{measured: ProbeState, jobs: number}} props */
export function ExpectedTime({ measured: { probe, isCurrent }, jobs }) {
  const result = isCurrent ? probe?.result : null;
  if (!result) return html`<span class="hint">How long it takes is not measured yet.</span>`;
  if (!result.estimated_seconds) return html`<span class="warn">How long it takes could not be measured; its checks show why.</span>`;
  return html`<span>Takes about ${duration(result.estimated_seconds)}${jobs > 1 ? `, the first of ${jobs} jobs` : ""}.</span>`;
}

/** @param {{probe: Probe}} props */
function ProbeResult({ probe }) {
  if (probe.error) return html`<${Problem} error=${probe.error} />`;
  if (!probe.result) return html`<p role="status">${probe.status_reason ? `Waits: ${probe.status_reason.message} ${probe.status_reason.hint}` : probe.status === "queued" ? "Waits for a worker." : "A worker builds the job and runs a few steps."}</p>`;
  const { result } = probe;
  return html`
    <${Facts} items=${[
      ["Training and evaluation", result.estimated_seconds ? `about ${duration(result.estimated_seconds)}` : NONE],
      ["Training step", result.seconds_per_step ? `${number(result.seconds_per_step)} s` : NONE],
      ["Peak memory", result.peak_memory_mb ? `${number(Math.round(result.peak_memory_mb))} MiB` : NONE],
      ["Device", [result.device, result.precision].filter(Boolean).join(", ") || NONE],
      ["Images", `${number(result.training_images)} to train on, ${number(result.validation_images)} to validate on`],
      ["Classes", result.classes ? plural(result.classes.length, "class", "classes") : NONE],
    ]} />
    <${Costs} result=${result} />
    <${Checks} checks=${result.checks} />`;
}

/** @param {{result: Estimate}} props */
function Costs({ result }) {
  if (!result.teacher && !result.student) return null;
  return html`
    <div class="scroll"><table>
      <caption class="visually-hidden">Cost of the detectors for one image</caption>
      <thead><tr><th></th><th class="numeric">Parameters</th><th class="numeric">FLOPs</th><th class="numeric">Latency</th></tr></thead>
      <tbody><${CostRow} name="Teacher" cost=${result.teacher} /><${CostRow} name=${result.teacher ? "Student" : "Detector"} cost=${result.student} /></tbody>
    </table></div>
    <p class="hint">FLOPs: ${result.flops_convention}.</p>`;
}

/** @param {{name: string, cost: Estimate["student"]}} props */
const CostRow = ({ name, cost }) => cost && html`
  <tr><th>${name}</th><td class="numeric">${count(cost.parameters)}</td><td class="numeric">${count(cost.flops)}</td><td class="numeric">${milliseconds(cost.latency_ms)}</td></tr>`;
