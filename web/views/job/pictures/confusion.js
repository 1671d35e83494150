// @ts-check
/** Confusion matrices: which class each detector takes for which, what it misses, what it invents. */
import { html } from "../../../html.js";
import { ROLES } from "../pictures.js";

const MAX_CLASSES = 30;

/** @param {{data: any}} props `data` is the job's details.json. */
export function Confusion({ data }) {
  const roles = Object.entries(ROLES).filter(([role]) => data.confusion[role]);
  const shown = frequentClasses(data);
  return html`
    <p class="hint">A row is the class of an object, a column the class of its detection (score from 0.3, IoU from 0.5, matched over all classes).
      The last column counts missed objects, the last row detections without an object. The shade is the share of the row.
      ${data.classes.length > MAX_CLASSES && ` The ${MAX_CLASSES} classes with the most objects are shown.`}</p>
    <div class="charts">${roles.map(([role, title]) => html`
      <section class="card" key=${role}>
        <h2 class=${`of-${role}`}>${title}</h2>
        <${Matrix} classes=${data.classes} shown=${shown} entries=${data.confusion[role]} label=${`Confusion matrix of the ${title}`} />
      </section>`)}</div>`;
}

/** Indices of the classes that are shown, those with the most objects, in their order. @param {any} data @returns {number[]} */
function frequentClasses(data) {
  const objects = data.classes.map(() => 0);
  const [entries] = Object.values(data.confusion);
  for (const [row, , count] of /** @type {any} */ (entries)) if (row < objects.length) objects[row] += count;
  const order = objects.map((/** @type {number} */ _, /** @type {number} */ index) => index).sort((/** @type {number} */ a, /** @type {number} */ b) => objects[b] - objects[a]);
  return order.slice(0, MAX_CLASSES).sort((/** @type {number} */ a, /** @type {number} */ b) => a - b);
}

/** @param {{classes: string[], shown: number[], entries: [number, number, number][], label: string}} props */
function Matrix({ classes, shown, entries, label }) {
  const background = classes.length;
  const counts = new Map(entries.map(([row, column, count]) => [`${row},${column}`, count]));
  const totals = new Map();
  for (const [row, , count] of entries) totals.set(row, (totals.get(row) ?? 0) + count);
  const axis = [...shown, background];
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${label}>
      <table class="matrix">
        <thead><tr><td></td>${axis.map((column) => html`<th scope="col">${column === background ? "missed" : classes[column]}</th>`)}</tr></thead>
        <tbody>${axis.map((row) => html`
          <tr><th scope="row">${row === background ? "no object" : classes[row]}</th>
          ${axis.map((column) => {
            const count = counts.get(`${row},${column}`) ?? 0;
            const kind = row === column ? "right" : "wrong";
            return html`<td class=${count ? kind : ""} style=${{ "--share": count / (totals.get(row) || 1) }}>${row === background && column === background ? "" : count}</td>`;
          })}</tr>`)}</tbody>
      </table>
    </div>`;
}
