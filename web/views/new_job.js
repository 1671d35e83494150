// @ts-check
/** A new job, as a form and as YAML, with a live plan. */
import { get, idempotencyKey, post, save } from "../api.js";
import { ActionButton, Copy, Loading, Problem, Tabs } from "../components/basics.js";
import { toast } from "../components/toast.js";
import { plural, points } from "../format.js";
import { html, useMemo, useRef, useState } from "../html.js";
import { useResource } from "../resource.js";
import { go, href, route } from "../router.js";
import { SpecForm } from "./new_job/form.js";
import { ExpectedTime, PlanPanel, ProbePanel, usePlan, useProbe } from "./new_job/plan.js";
import { withoutDefaults } from "./new_job/schema.js";

/** @typedef {import("../types/api").components["schemas"]["Job"]} Job */
/** @typedef {import("../types/api").components["schemas"]["Recipe"]} Recipe */
/** @typedef {{definitions: import("./new_job/schema.js").Definitions, recipes: Recipe[], suggestions: import("./new_job/fields.js").FormContext["suggestions"], yaml: any}} Material */

/** The spec that is being written, kept while other views are shown. */
let draft = { source: "", spec: /** @type {any} */ (null) };

export function View() {
  const { from, recipe, dataset, teacher, seeds } = route.value.query;
  const material = useResource(loadMaterial, []);
  return html`
    <h1>New job</h1>
    <${Loading} resource=${material}>${(/** @type {Material} */ data) => html`<${Source} key=${[from, recipe, dataset, teacher, seeds].join(" ")} ...${{ from, recipe, dataset, teacher, seeds }} material=${data} />`}<//>`;
}

/** @param {AbortSignal} signal @returns {Promise<Material>} */
async function loadMaterial(signal) {
  /** @type {[any, any, any, any, {data: Job[]}, any]} */
  const [document, recipes, datasets, detectors, jobs, yaml] = await Promise.all([
    get("openapi.json", {}, signal), get("recipes", {}, signal), get("datasets", { limit: 200 }, signal), get("detectors", { limit: 200 }, signal),
    get("jobs", { kind: ["distill", "train", "quantize"], limit: 200 }, signal), import("../vendor/js-yaml.js"),
  ]);
  const mAP = (/** @type {{mAP?: number | null}} */ row) => (typeof row.mAP === "number" ? `mAP ${points(row.mAP)}` : "");
  const label = (/** @type {any[]} */ ...parts) => parts.filter(Boolean).join(", ");
  const dataset = datasets.data.map((/** @type {any} */ row) => ({ value: row.name, label: label(row.name, row.status) }));
  const detector = detectors.data.map((/** @type {any} */ row) => ({ value: row.name, label: label(row.name, mAP(row), row.status) }));
  const withStudent = jobs.data.filter(({ status }) => !["failed", "cancelled"].includes(status));
  const finishedFirst = withStudent.sort((one, other) => Number(other.status === "succeeded") - Number(one.status === "succeeded"));
  const job = finishedFirst.map((row) => ({ value: row.id, label: label(row.name ?? row.id, row.spec.dataset, mAP(row), row.status) }));
  return { definitions: document.components.schemas, recipes: recipes.data, yaml, suggestions: { dataset, unlabelled: dataset, detector, job } };
}

/**
 * Load the spec to start from: a recipe, the spec of a job, or nothing. `dataset`, `teacher` (id of a job) and `seeds` (number of pairs) replace its own.
 * @param {{from?: string, recipe?: string, dataset?: string, teacher?: string, seeds?: string, material: Material}} props
 */
function Source({ from, recipe, dataset, teacher, seeds, material }) {
  const source = [from ? `job ${from}` : recipe ? `recipe ${recipe}` : "nothing", dataset, teacher, seeds].filter(Boolean).join(" ");
  const spec = useResource(async (signal) => {
    if (draft.source === source && draft.spec) return { spec: draft.spec, isDraft: true };
    const loaded = from
      ? withoutDefaults((await get(`jobs/${encodeURIComponent(from)}`, {}, signal)).spec, material.definitions.JobSpec, material.definitions)
      : recipe ? onOwnData((await get(`recipes/${encodeURIComponent(recipe)}`, {}, signal)).spec, material) : {};
    const taught = teacher ? underTeacher(loaded, await get(`jobs/${encodeURIComponent(teacher)}`, {}, signal)) : loaded;
    return { spec: { ...taught, ...(dataset && { dataset }), ...(seeds && { baseline: { seeds: Number(seeds) } }) }, isDraft: false };
  }, [source]);
  const startOver = () => {
    draft = { source: "", spec: null };
    spec.reload();
  };
  return html`
    <div class="row">
      <label>Start from <select onChange=${(/** @type {any} */ event) => go(["new"], { recipe: event.target.value, tab: route.value.query.tab })}>
        <option value="" selected=${!recipe}>${from ? `job ${material.suggestions.job.find((item) => item.value === from)?.label ?? from}` : "nothing"}</option>
        ${material.recipes.map((item) => html`<option key=${item.name} value=${item.name} selected=${item.name === recipe}>${item.name}</option>`)}
      </select></label>
      <span class="hint">${teacher ? "Data set, image size and epochs are the teacher's." : material.recipes.find((item) => item.name === recipe)?.title}</span>
      <a href="#/recipes">All recipes</a>
      ${!material.suggestions.dataset.length && html`<span class="warn">There is no data set yet. <a href="#/datasets">Add one</a></span>`}
      ${spec.data?.isDraft && html`<span class="hint">Your changes from before are kept.</span><button class="quiet" onClick=${startOver}>Discard them</button>`}
    </div>
    <${Loading} resource=${spec}>${(/** @type {{spec: any, isDraft: boolean}} */ data) => html`
      <${Editor} key=${`${source} ${data.isDraft}`} initial=${data.spec} material=${material} onSpec=${(/** @type {any} */ next) => { draft = { source, spec: next }; }} />`}<//>`;
}

/**
 * Return the spec with the job as its teacher, on the data set, the images and the image size, and for the epochs, that the teacher was trained with.
 * @param {any} spec @param {Job} job
 */
function underTeacher(spec, { id, spec: { dataset, schedule, max_invalid_fraction } }) {
  const { image_size: _, ...others } = spec.schedule ?? {}; // without one, both have the size of their base config
  const { image_size, epochs, keep_background_images } = schedule;
  const followed = Object.fromEntries(Object.entries({ image_size, epochs, keep_background_images }).filter(([, value]) => value));
  return { ...spec, dataset, teacher: { job: id }, ...(max_invalid_fraction && { max_invalid_fraction }), schedule: { ...others, ...followed } };
}

/** Empty what a recipe names as an example: a data set that is not registered, and the job of a teacher. @param {any} spec @param {Material} material */
function onOwnData(spec, { suggestions }) {
  const names = suggestions.dataset.map((item) => item.value);
  const dataset = names.includes(spec.dataset) ? spec.dataset : names.length === 1 ? names[0] : "";
  return { ...spec, dataset, ...(/^job_0+$/.test(spec.teacher?.job ?? "") && { teacher: { job: "" } }) };
}

/** @param {{initial: any, material: Material, onSpec: (spec: any) => void}} props */
function Editor({ initial, material, onSpec }) {
  const dump = (/** @type {any} */ spec) => (Object.keys(spec).length ? material.yaml.dump(spec, { lineWidth: 110, noRefs: true }) : "");
  const [state, setState] = useState(() => ({ spec: initial, text: dump(initial), yamlError: "" }));
  const [submitError, setSubmitError] = useState(/** @type {{error: any, spec: any} | null} */ (null));
  const plan = usePlan(state.spec);
  const measured = useProbe(state.spec);
  const { spec, text, yamlError } = state;
  const error = submitError?.spec === spec ? submitError?.error : null;

  const change = (/** @type {any} */ next) => {
    setState({ spec: next, text: dump(next), yamlError: "" });
    onSpec(next);
  };
  const write = (/** @type {string} */ next) => {
    const { content, problem } = readYaml(next, material.yaml);
    setState({ spec: problem ? spec : content, text: next, yamlError: problem });
    if (!problem) onSpec(content);
  };
  const context = { ...material, errors: [...(error ?? plan.error)?.errors ?? []] };
  const tab = route.value.query.tab === "yaml" ? "yaml" : "form";
  const address = (/** @type {string} */ name) => href(["new"], { ...route.value.query, tab: name === "form" ? null : name });
  return html`
    <div class="split">
      <div>
        <${Tabs} label="Form or YAML" current=${tab} items=${[{ name: "form", title: "Form", address: address("form") }, { name: "yaml", title: "YAML", address: address("yaml") }]} />
        ${tab === "yaml"
          ? html`<${YamlEditor} text=${text} problem=${yamlError} name=${spec.name ?? "job"} onText=${write} />`
          : html`<${SpecForm} spec=${spec} onChange=${change} context=${context} />`}
      </div>
      <div class="side">
        ${error && html`<${Problem} error=${error} />`}
        <${Submit} spec=${spec} plan=${plan} measured=${measured} yamlError=${yamlError} onError=${(/** @type {any} */ failure) => setSubmitError({ error: failure, spec })} />
        <${ProbePanel} state=${plan} measured=${measured} spec=${spec} />
        <${PlanPanel} state=${plan} />
      </div>
    </div>`;
}

/** @param {string} text @param {any} yaml @returns {{content: any, problem: string}} */
function readYaml(text, yaml) {
  try {
    const content = yaml.load(text) ?? {};
    if (typeof content !== "object" || Array.isArray(content)) return { content: null, problem: "A spec is a mapping, such as `dataset: shapes`." };
    return { content, problem: "" };
  } catch (/** @type {any} */ error) {
    return { content: null, problem: error.message };
  }
}

/** @param {{text: string, problem: string, name: string, onText: (text: string) => void}} props */
function YamlEditor({ text, problem, name, onText }) {
  const open = async (/** @type {any} */ event) => onText(await event.target.files[0].text());
  return html`
    <div class="row">
      <label>Open a file <input type="file" accept=".yaml,.yml,.json" onChange=${open} /></label>
      <${Copy} text=${text} label="Copy YAML" />
      <button class="quiet" onClick=${() => save(`${name}.yaml`, new Blob([text], { type: "text/yaml" }))}>Download</button>
    </div>
    <textarea class="spec-text" aria-label="Job spec as YAML or JSON" spellcheck="false" value=${text} aria-invalid=${problem !== ""} onInput=${(/** @type {any} */ event) => onText(event.target.value)}></textarea>
    ${problem && html`<p class="bad" role="alert">The form and the plan show the last valid text. ${problem}</p>`}
    <p class="hint">Absent fields have their defaults. <code>frs submit FILE</code> accepts the same text.</p>`;
}

/** @param {{spec: any, plan: import("./new_job/plan.js").PlanState, measured: import("./new_job/plan.js").ProbeState, yamlError: string, onError: (error: any) => void}} props */
function Submit({ spec, plan, measured, yamlError, onError }) {
  const content = JSON.stringify(spec);
  const key = useMemo(() => idempotencyKey(), [content]);
  const isRefused = plan.isCurrent && (plan.error?.status === 422 || plan.plan?.ok === false);
  const jobs = plan.plan?.jobs ?? 1;
  const isBusy = useRef(false);

  const submit = async () => {
    if (isBusy.current) return;
    isBusy.current = true;
    try {
      const job = await post("jobs", spec, { "Idempotency-Key": key });
      draft = { source: "", spec: null };
      toast(`${jobs === 1 ? "The job is" : `${plural(jobs, "job")} are`} in the queue.`);
      go(["jobs", job.id]);
    } catch (error) {
      onError(error);
    } finally {
      isBusy.current = false;
    }
  };
  return html`<div class="row">
    <${ActionButton} class="primary" disabled=${!spec.dataset || !spec.student || yamlError !== "" || isRefused} onClick=${submit}>${jobs === 1 ? "Submit" : `Submit ${plural(jobs, "job")}`}<//>
    ${yamlError || isRefused ? html`<span class="hint">${yamlError ? "Mend the YAML first." : "The plan shows what to mend."}</span>` : html`<${ExpectedTime} measured=${measured} jobs=${jobs} />`}
  </div>`;
}
