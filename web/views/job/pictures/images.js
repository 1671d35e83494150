// @ts-check
/** The images on which the detectors differ most, with their boxes side by side. */
import { Boxes, ClassLegend } from "../../../components/boxes.js";
import { useObjectUrl } from "../../../components/files.js";
import { plural } from "../../../format.js";
import { html, useState } from "../../../html.js";
import { href, route, setQuery } from "../../../router.js";
import { ROLES } from "../pictures.js";

const PAGE = 5;

/** Orders of the images: how much one detector exceeds another on an image, by right minus wrong detections. */
const ORDERS = {
  "teacher-student": { title: "the student loses most against its teacher", lead: (/** @type {any} */ b) => b.teacher - b.student },
  "baseline-student": { title: "distillation made it worse", lead: (/** @type {any} */ b) => b.baseline - b.student },
  "student-baseline": { title: "distillation made it better", lead: (/** @type {any} */ b) => b.student - b.baseline },
};

/** @param {{job: any, data: any}} props `data` is the job's details.json. */
export function Images({ job, data }) {
  const { order = data.images[0]?.balance.teacher === undefined ? "student-baseline" : "teacher-student", class: category = "", score = "0.3" } = route.value.query;
  const [count, setCount] = useState(PAGE);
  const { lead } = ORDERS[/** @type {keyof typeof ORDERS} */ (order)] ?? ORDERS["teacher-student"];
  const images = data.images
    .filter((/** @type {any} */ image) => lead(image.balance) > 0 && (!category || image.objects.some((/** @type {any} */ object) => object.category === category)))
    .sort((/** @type {any} */ a, /** @type {any} */ b) => lead(b.balance) - lead(a.balance));
  const change = (/** @type {string} */ name) => (/** @type {any} */ event) => setQuery({ [name]: event.target.value });
  return html`
    <div class="row">
      <label>Images on which <select value=${order} onChange=${change("order")}>
        ${Object.entries(ORDERS).map(([name, { title }]) => html`<option value=${name}>${title}</option>`)}
      </select></label>
      <label>Class <select value=${category} onChange=${change("class")}>
        <option value="">all</option>
        ${data.classes.map((/** @type {string} */ name) => html`<option value=${name}>${name}</option>`)}
      </select></label>
      <label>Score from <input type="range" min="0.05" max="0.95" step="0.05" value=${score} onInput=${change("score")} /> ${Number(score).toFixed(2)}</label>
    </div>
    <${ClassLegend} classes=${data.classes} note="Dashed: wrong, without an object of its class at an IoU from 0.5. Point at a box for its class and score." />
    <p class="hint">These are ${plural(data.images.length, "validation image")}, those with the largest differences.
      ${" "}<a href=${href(["datasets", job.spec.dataset, "pictures"], { split: "val" })}>All validation images</a>${job.seed_job_ids?.length > 0 && ". The detectors are those of the first seed"}.</p>
    ${images.length === 0 && html`<p class="empty">There is no such image among those with the largest differences.</p>`}
    ${images.slice(0, count).map((/** @type {any} */ image) => html`<${Row} key=${image.id} job=${job} image=${image} classes=${data.classes} category=${category} score=${Number(score)} />`)}
    ${images.length > count && html`<button onClick=${() => setCount(count + PAGE)}>Show ${Math.min(PAGE, images.length - count)} more of ${images.length}</button>`}`;
}

/** One image: ground truth, then each detector. @param {{job: any, image: any, classes: string[], category: string, score: number}} props */
function Row({ job, image, classes, category, score }) {
  const { url, error } = useObjectUrl(`/datasets/${encodeURIComponent(job.spec.dataset)}/images/${image.id}/content`, { split: "val" });
  const ofClass = (/** @type {any} */ box) => !category || box.category === category;
  const cells = [
    { title: `ground truth, ${image.objects.length} objects`, boxes: image.objects.filter(ofClass).map(toBox) },
    ...Object.entries(ROLES).filter(([role]) => image.detections[role]).map(([role, title]) => {
      const detections = image.detections[role].filter((/** @type {any} */ box) => box.score >= score);
      const number = (/** @type {string} */ outcome) => detections.filter((/** @type {any} */ box) => box.outcome === outcome).length;
      return {
        title: `${title}: ${number("right")} right, ${number("wrong")} wrong`,
        boxes: detections.filter(ofClass).map(toBox),
      };
    }),
  ];
  return html`
    <section class="card">
      <h2>${image.file_name}</h2>
      ${error && html`<p class="hint">The image cannot be shown: ${error.message}</p>`}
      <div class="grid narrow">${cells.map((cell) => html`
        <figure><figcaption>${cell.title}</figcaption><${Boxes} source=${url} width=${image.width} height=${image.height} boxes=${cell.boxes} classes=${classes} alt=${`${image.file_name}, ${cell.title}`} /></figure>`)}</div>
    </section>`;
}

/** @param {any} box @returns {import("../../../components/boxes.js").Box} */
function toBox({ bbox: [x, y, width, height], category, score, outcome }) {
  return { x, y, width, height, category, score, isWrong: outcome === "wrong" };
}
