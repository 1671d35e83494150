// @ts-check
/** Precision-recall curves of teacher, baseline and student, by IoU threshold and class. */
import { Chart, COLOURS } from "../../../components/chart.js";
import { points } from "../../../format.js";
import { html, useMemo } from "../../../html.js";
import { route, setQuery } from "../../../router.js";
import { ROLES } from "../pictures.js";

/** @param {{data: any}} props `data` is the job's details.json. */
export function PrecisionRecall({ data }) {
  const chosen = route.value.query.class ?? "";
  return html`
    <div class="row controls"><label>Class
      <select value=${chosen} onChange=${(/** @type {any} */ event) => setQuery({ class: event.target.value })}>
        <option value="">mean over the classes</option>
        ${data.classes.map((/** @type {string} */ name) => html`<option value=${name}>${name}</option>`)}
      </select></label></div>
    <div class="grid">
      ${Object.entries(data.curves).map(([threshold, byRole]) => html`
        <section class="card" key=${threshold}>
          <h2>IoU ${threshold}</h2>
          <${Curves} recalls=${data.recalls} byRole=${byRole} name=${chosen} label=${`Precision by recall at IoU ${threshold}`} />
        </section>`)}
    </div>`;
}

/** @param {{recalls: number[], byRole: any, name: string, label: string}} props */
function Curves({ recalls, byRole, name, label }) {
  const option = useMemo(() => {
    const series = Object.entries(ROLES).filter(([role]) => byRole[role]).map(([role, title]) => {
      const precision = name ? byRole[role].per_class[name] ?? [] : byRole[role].mean;
      const mean = precision.length ? precision.reduce((/** @type {number} */ sum, /** @type {number} */ value) => sum + value, 0) / precision.length : null;
      return {
        name: `${title}, AP ${points(mean)}`, type: "line", showSymbol: false, color: COLOURS[/** @type {keyof typeof COLOURS} */ (role)],
        lineStyle: { type: role === "teacher" ? "dashed" : "solid", width: 2 },
        data: precision.map((/** @type {number} */ value, /** @type {number} */ index) => [recalls[index], value]),
      };
    });
    const axis = { type: "value", min: 0, max: 1, nameLocation: "middle" };
    return {
      series, legend: { top: 0, left: 0, orient: "vertical" }, tooltip: { trigger: "axis", valueFormatter: (/** @type {number} */ value) => value?.toFixed(3) },
      xAxis: { ...axis, name: "recall", nameGap: 26 }, yAxis: { ...axis, name: "precision", nameGap: 34 }, grid: { top: 24 * series.length + 14, bottom: 30, left: 30 },
    };
  }, [byRole, name]);
  return html`<${Chart} option=${option} label=${label} height=${380} />`;
}
