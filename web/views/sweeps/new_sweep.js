// @ts-check
/** A new sweep, as YAML: the spec of a job, of a recipe or of another sweep, and the fields to search. */
import { get, idempotencyKey, post } from "../../api.js";
import { ActionButton, Loading, Problem } from "../../components/basics.js";
import { html, useMemo, useState } from "../../html.js";
import { useResource } from "../../resource.js";
import { go, route } from "../../router.js";

const RECIPE = "edge_student";
/** What is searched unless another sweep is copied. */
const SEARCH = { strategy: "grid", space: { "distillation.feature_ratio": [10, 30, 100] }, seeds: 2, confirm_seeds: 3, concurrency: 2 };

export function NewSweep() {
  const { from, recipe = RECIPE } = route.value.query;
  const start = useResource(async (signal) => {
    const { dump, load } = await import("../../vendor/js-yaml.js");
    return { load, text: dump(await template(from, recipe, signal), { lineWidth: 110, noRefs: true }) };
  }, [from, recipe]);
  return html`
    <p class="hint">Lists are tried in every combination. With <code>strategy: random</code> or <code>asha</code> and a number of <code>samples</code>, a field may also be
      <code>{log_uniform: [0.0001, 0.01]}</code>, <code>uniform</code> or <code>int_uniform</code>. <code>method</code> and fields of <code>distillation</code>, <code>schedule</code> and <code>student</code> can be searched.</p>
    <${Loading} resource=${start}>${(/** @type {any} */ { load, text }) => html`<${Form} key=${text} initial=${text} load=${load} />`}<//>`;
}

/** The request to start from: that of a sweep or a job, or a recipe. @param {string | undefined} from @param {string} recipe @param {AbortSignal} signal */
async function template(from, recipe, signal) {
  if (from?.startsWith("sweep_")) return (await get(`/sweeps/${from}`, {}, signal)).spec;
  const { baseline, ...spec } = (await get(from ? `/jobs/${from}` : `/recipes/${recipe}`, {}, signal)).spec;
  return { ...SEARCH, spec };
}

/** @param {{initial: string, load: (text: string) => any}} props */
function Form({ initial, load }) {
  const [text, setText] = useState(initial);
  const [error, setError] = useState(/** @type {any} */ (null));
  const key = useMemo(() => idempotencyKey(), [text]);
  const submit = async () => {
    try {
      const sweep = await post("/sweeps", load(text), { "Idempotency-Key": key });
      go(["sweeps", sweep.id]);
    } catch (error) {
      setError(error);
    }
  };
  return html`<section class="card">
    <div class="field"><label for="sweep-yaml">Sweep as YAML</label>
      <textarea id="sweep-yaml" rows="30" spellcheck="false" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea></div>
    ${error && html`<${Problem} error=${error} />`}
    <div class="row end"><${ActionButton} class="primary" onClick=${submit}>Start the sweep<//></div>
  </section>`;
}
