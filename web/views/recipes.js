// @ts-check
/** Built-in job specs: what each trains, what the paper reports for it, and its YAML. */
import { get } from "../api.js";
import { Copy, Facts, Loading } from "../components/basics.js";
import { Prose } from "../components/prose.js";
import { Table } from "../components/table.js";
import { NONE } from "../format.js";
import { html } from "../html.js";
import { useResource } from "../resource.js";
import { href, route, setQuery } from "../router.js";

/** @typedef {import("../types/api").components["schemas"]["Recipe"]} Recipe */

export function View() {
  const recipes = useResource(async (signal) => /** @type {Recipe[]} */ ((await get("recipes", {}, signal)).data), []);
  return html`
    <h1>Recipes</h1>
    <p class="hint">A recipe is a job spec to start from: the pairs of the paper, and smaller ones for your own data. mAP as the paper reports it, in points.</p>
    <${Loading} resource=${recipes}>${(/** @type {Recipe[]} */ rows) => html`
      <section class="card"><${List} rows=${rows} /></section>
      <${Chosen} recipe=${rows.find((row) => row.name === route.value.query.recipe)} />`}<//>`;
}

/** @param {number | null | undefined} value */
const paper = (value) => (value === null || value === undefined ? NONE : value.toFixed(1));

/** @param {{rows: Recipe[]}} props */
function List({ rows }) {
  const columns = [
    { name: "name", title: "Recipe", sort: (/** @type {Recipe} */ row) => row.name,
      cell: (/** @type {Recipe} */ row) => html`<div style=${{ minWidth: "11.5rem" }}><a href=${href(["recipes"], { ...route.value.query, recipe: row.name })}>${row.name}</a></div>` },
    { name: "title", title: "Description", cell: (/** @type {Recipe} */ row) => html`<div style=${{ minWidth: "14rem" }}><${Prose} text=${row.title} /></div>` },
    { name: "kind", title: "Kind", sort: (/** @type {Recipe} */ row) => row.spec.kind, cell: (/** @type {Recipe} */ row) => row.spec.kind },
    { name: "dataset", title: "Data set", sort: (/** @type {Recipe} */ row) => row.spec.dataset, cell: (/** @type {Recipe} */ row) => html`<span class="together">${row.spec.dataset}</span>` },
    { name: "teacher", title: "Paper: teacher", numeric: true, sort: (/** @type {Recipe} */ row) => row.published?.teacher, cell: (/** @type {Recipe} */ row) => paper(row.published?.teacher) },
    { name: "alone", title: "Paper: student alone", numeric: true, sort: (/** @type {Recipe} */ row) => row.published?.student_alone, cell: (/** @type {Recipe} */ row) => paper(row.published?.student_alone) },
    { name: "distilled", title: "Paper: distilled", numeric: true, sort: (/** @type {Recipe} */ row) => row.published?.student_distilled, cell: (/** @type {Recipe} */ row) => paper(row.published?.student_distilled) },
    { name: "use", title: html`<span class="visually-hidden">Use</span>`, cell: (/** @type {Recipe} */ row) => html`<a href=${href(["new"], { recipe: row.name })}>Use</a>` },
  ];
  return html`<${Table} label="Recipes" columns=${columns} rows=${rows} rowKey=${(/** @type {Recipe} */ row) => row.name} empty="The service has no recipes."
    order=${route.value.query.order ?? "name"} onOrder=${(/** @type {string} */ order) => setQuery({ order })} />`;
}

/** @param {{recipe: Recipe | undefined}} props */
function Chosen({ recipe }) {
  const yaml = useResource(async () => (recipe ? (await import("../vendor/js-yaml.js")).dump(recipe.spec, { lineWidth: 110, noRefs: true }) : ""), [recipe?.name]);
  if (!recipe) return html`<p class="hint">Choose a recipe to see its spec.</p>`;
  const weights = recipe.teacher_weights;
  return html`
    <section class="card">
      <h2>${recipe.name}</h2>
      <p><${Prose} text=${recipe.title} /></p>
      ${weights && html`<${Facts} items=${[["Teacher's weights", html`<code>${weights.file}</code>`], ["SHA-256 starts with", html`<code>${weights.sha256_prefix}</code>`]]} />
        <p class="hint">Put this file into the models folder of the service before you submit the job.</p>`}
      <${Loading} resource=${yaml}>${(/** @type {string} */ text) => html`
        <div class="row"><a class="button primary" href=${href(["new"], { recipe: recipe.name })}>New job from this recipe</a><${Copy} text=${text} label="Copy YAML" /></div>
        <pre tabindex="0" aria-label=${`Spec of ${recipe.name}`}>${text}</pre>`}<//>
    </section>`;
}
