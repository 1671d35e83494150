// @ts-check
/** What would happen if the spec were submitted now: checks, size of the job, and, measured by a worker, time and cost. */
import { get, post } from "../../api.js";
import { ActionButton, Facts, Problem } from "../../components/basics.js";
import { Prose } from "../../components/prose.js";
import { count, duration, milliseconds, NONE, number, plural, words } from "../../format.js";
import { html, useEffect, useRef, useState } from "../../html.js";

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

/** @param {{state: PlanState, spec: any}} props */
export function PlanPanel({ state, spec }) {
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
    </section>
    <${ProbePanel} spec=${spec} isPossible=${Boolean(plan?.ok && isCurrent)} />`;
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

/** The measurement of time, memory and cost, which takes a worker for a moment. @param {{spec: any, isPossible: boolean}} props */
function ProbePanel({ spec, isPossible }) {
  const [state, setState] = useState(/** @type {{probe: Probe | null, error: any, content: string}} */ ({ probe: null, error: null, content: "" }));
  const abort = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => abort.current?.abort(), []);

  const measure = async () => {
    abort.current = new AbortController();
    const content = JSON.stringify(spec);
    const update = (/** @type {Probe | null} */ probe, /** @type {any} */ error = null) => !abort.current?.signal.aborted && setState({ probe, error, content });
    update(null);
    try {
      let probe = await post("jobs/plan?probe=true", spec);
      while (!abort.current.signal.aborted) {
        update(probe);
        if (probe.status === "succeeded" || probe.status === "failed") return;
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        probe = await get(`plans/${probe.id}`, {}, abort.current.signal);
      }
    } catch (error) {
      update(null, error);
    }
  };
  const { probe, error } = state;
  return html`
    <section class="card" aria-label="Time and cost">
      <h2>Time, memory and cost</h2>
      <div class="row"><${ActionButton} disabled=${!isPossible} onClick=${measure}>Measure on a worker<//></div>
      <p class="hint">A worker builds the detectors and runs a few training steps. <code>frs plan --probe</code> does the same.</p>
      ${error && html`<${Problem} error=${error} />`}
      ${probe && state.content !== JSON.stringify(spec) && html`<p class="warn">Measured for an earlier version of the spec.</p>`}
      ${probe && html`<${ProbeResult} probe=${probe} />`}
    </section>`;
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
