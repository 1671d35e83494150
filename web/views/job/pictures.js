// @ts-check
/** What the detectors of a job get right and wrong: images, precision-recall curves, confusion, and the teacher's richness. */
import { get } from "../../api.js";
import { Loading, Tabs } from "../../components/basics.js";
import { html } from "../../html.js";
import { useResource } from "../../resource.js";
import { href, route } from "../../router.js";
import { Confusion } from "./pictures/confusion.js";
import { Images } from "./pictures/images.js";
import { PrecisionRecall } from "./pictures/precision_recall.js";
import { Richness } from "./pictures/richness.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */

/** The roles in the order in which they are shown, with their names. */
export const ROLES = { teacher: "teacher", baseline: "student alone", student: "student distilled" };

const PARTS = {
  images: { title: "Images", file: "details.json", view: Images },
  "precision-recall": { title: "Precision and recall", file: "details.json", view: PrecisionRecall },
  confusion: { title: "Confusion", file: "details.json", view: Confusion },
  richness: { title: "Richness", file: "richness.json", view: Richness },
};
const WHY_MISSING = {
  "details.json": "They are made when student and baseline are compared; a job without baseline has none.",
  "richness.json": "They are made at the end of a job with a teacher.",
};

/** @param {{job: Job, live: any, related: Job[]}} props */
export function Tab({ job, related }) {
  const isOpen = [job, ...related].some((run) => !run.is_terminal);
  const name = route.value.query.part ?? "images";
  const part = PARTS[/** @type {keyof typeof PARTS} */ (name)] ?? PARTS.images;
  const items = Object.entries(PARTS).map(([key, { title }]) => ({ name: key, title, address: href(["jobs", job.id, "pictures"], { part: key }) }));
  return html`
    <${Tabs} items=${items} current=${name} label="Kinds of pictures" />
    <${Part} key=${part.file} job=${job} isOpen=${isOpen} file=${part.file} view=${part.view} />`;
}

/** One kind of pictures; its file may come as long as a job of the run group has not ended. @param {{job: Job, isOpen: boolean, file: string, view: any}} props */
function Part({ job, isOpen, file, view: View }) {
  const resource = useResource((abort) => get(`/jobs/${job.id}/artifacts/${file}`, {}, abort), [job.id, file, isOpen], isOpen ? 10 : 0);
  if (resource.error?.status === 404) {
    return html`<p class="empty">There are no pictures of this kind${isOpen ? " yet" : ""}. ${WHY_MISSING[/** @type {keyof typeof WHY_MISSING} */ (file)]}
      ${" "}<a href=${href(["jobs", job.id, "files"])}>Files of this job</a></p>`;
  }
  return html`<${Loading} resource=${resource}>${(/** @type {any} */ data) => html`<${View} job=${job} data=${data} />`}<//>`;
}
