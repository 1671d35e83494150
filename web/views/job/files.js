// @ts-check
/** Files of a job: exports for the device, trying them on a picture, artifacts and checkpoints. */
import { download, get, getAll, post } from "../../api.js";
import { ActionButton, Ago, Loading } from "../../components/basics.js";
import { Hash } from "../../components/files.js";
import { Table } from "../../components/table.js";
import { attempt } from "../../components/toast.js";
import { TryIt } from "../../components/try_it.js";
import { bytes, NONE, points } from "../../format.js";
import { html, useState } from "../../html.js";
import { useResource } from "../../resource.js";
import { capital, detectorOf } from "../../roles.js";
import { ExportForm, ExportList } from "./exports.js";
import { LatencyChart } from "./latency_chart.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */
/** @typedef {import("../../types/api").components["schemas"]["Artifact"]} Artifact */
/** @typedef {import("../../types/api").components["schemas"]["Checkpoint"]} Checkpoint */
/** @typedef {import("../../types/api").components["schemas"]["Export"]} Export */

/** @param {{job: Job}} props */
export function Tab({ job }) {
  const trainsStudent = ["distill", "train", "quantize"].includes(job.kind);
  return html`
    ${(trainsStudent || job.kind === "export") && html`<${Exports} job=${job} />`}
    <section class="card"><h2>Files of the job</h2><${Artifacts} job=${job} /></section>
    ${trainsStudent && html`<section class="card"><h2>Checkpoints</h2><${Checkpoints} job=${job} /></section>`}`;
}

/** Exports of the student; of a job of kind `export` its own one. @param {{job: Job}} props */
function Exports({ job }) {
  const isExport = job.kind === "export";
  const [isOpen, setOpen] = useState(true);
  const exports = useResource(async () => {
    const rows = await getAll(`/jobs/${job.id}/exports`);
    setOpen(rows.some((row) => !row.finished_at));
    return rows;
  }, [job.id, job.status], isOpen ? 3 : 0);
  const hasFile = exports.data?.some((/** @type {Export} */ row) => row.status === "succeeded");
  const restart = () => { setOpen(true); exports.reload(); };
  return html`
    <section class="card"><h2>Exports for the device</h2>
      <${Loading} resource=${exports}>${(/** @type {Export[]} */ rows) => html`<${ExportList} exports=${rows} onChange=${restart} />`}<//>
      ${!isExport && html`<${ExportForm} job=${job} isFirst=${exports.data?.length === 0} onStarted=${restart} />`}
    </section>
    ${!isExport && job.is_terminal && html`<section class="card"><h2>mAP against latency</h2><${LatencyChart} key=${exports.data?.[0]?.finished_at} job=${job} /></section>`}
    ${job.is_terminal && (!isExport || hasFile) && html`<section class="card"><h2>Try it on a picture</h2>${hasFile
      ? html`<${TryIt} key=${exports.data?.[0]?.finished_at} sources=${sourcesOf(job)} dataset=${job.spec.dataset} formats=${isExport ? /** @type {any} */ (job.spec.export).formats : undefined} />`
      : html`<p class="empty">Start an export above: pictures are run on an exported file.</p>`}</section>`}`;
}

/** The detectors to run on a picture: the student, and what it is compared with. @param {Job} job @returns {import("../../components/try_it.js").Source[]} */
function sourcesOf(job) {
  /** @param {string} role @param {string} title @param {string} id */
  const ofJob = (role, title, id) => ({ role, title, path: `/jobs/${id}/predict`, startExport: (/** @type {string} */ format) => post(`/jobs/${id}/exports`, { formats: [format] }) });
  const own = ofJob("student", capital(detectorOf(job)), job.id);
  if (job.kind === "export") return [{ ...own, startExport: undefined }];
  const sources = [own];
  if (job.kind !== "distill") return sources;
  const teacher = /** @type {any} */ (job.spec.teacher);
  const [baseline] = job.baseline_job_ids;
  return [
    teacher?.job ? ofJob("teacher", "Teacher", teacher.job)
      : teacher?.detector ? { role: "teacher", title: "Teacher", path: `/detectors/${encodeURIComponent(teacher.detector)}/predict` }
      : { role: "teacher", title: "Teacher", why: "This teacher cannot be exported: it is neither the student of a job nor a registered detector." },
    ...sources,
    baseline ? ofJob("baseline", "Baseline", baseline) : { role: "baseline", title: "Baseline", why: "The job has no baseline. Post it with baseline: true to compare." },
  ];
}

/** Contents of the artifacts whose names do not say it. */
const CONTENTS = {
  "student.safetensors": "weights of the student, readable without torch", "student-config.py": "mmdet config of the student",
  "details.json": "boxes, curves and confusion matrices as JSON", "confusion.png": "classes taken for others, missed or invented",
  "richness.json": "richness of the teacher's features as JSON", "report.json": "the report as JSON", "curves.png": "training curves", "detections.png": "images on which the detectors differ most",
  "precision-recall.png": "precision against recall", "richness.png": "richness of the teacher's features", "frs_runner.py": "runs the exported files with numpy, Pillow and onnxruntime",
  "export.json": "comparison of the exported files with the student", "student.onnx": "the student, fp32", "student-int8.onnx": "the student, 8-bit",
  "detections-student.npz": "detections of the student on the validation images", "detections-teacher.npz": "detections of the teacher on the validation images",
};

/** @param {{job: Job}} props */
function Artifacts({ job }) {
  const artifacts = useResource((signal) => get(`/jobs/${job.id}/artifacts`, {}, signal), [job.id, job.status, job.phase]);
  /** @type {import("../../components/table.js").Column<Artifact>[]} */
  const columns = [
    { name: "name", title: "Name", cell: (row) => html`<code>${row.name}</code>` },
    { name: "content", title: "Content", cell: (row) => CONTENTS[/** @type {keyof typeof CONTENTS} */ (row.name)]?.replace("the student", `the ${detectorOf(job)}`) ?? NONE },
    { name: "bytes", title: "Size", numeric: true, cell: (row) => bytes(row.bytes) },
    { name: "sha256", title: "SHA-256", cell: (row) => html`<${Hash} value=${row.sha256} />` },
    { name: "created", title: "Written", cell: (row) => html`<${Ago} at=${row.created_at} />` },
    { name: "download", title: "Download", cell: (row) => html`<${Download} path=${`/jobs/${job.id}/artifacts/${encodeURIComponent(row.name)}`} name=${row.name} />` },
  ];
  return html`<${Loading} resource=${artifacts}>${(/** @type {{data: Artifact[]}} */ { data }) => html`
    <${Table} label="Files of the job" columns=${columns} rows=${data} rowKey=${(/** @type {Artifact} */ row) => row.name}
      empty=${job.is_terminal ? "The job wrote no files." : "No files yet: a job writes them when it evaluates and ends."} />`}<//>`;
}

/** @param {{job: Job}} props */
function Checkpoints({ job }) {
  const checkpoints = useResource((signal) => get(`/jobs/${job.id}/checkpoints`, {}, signal), [job.id, job.status, job.phase]);
  /** @type {import("../../components/table.js").Column<Checkpoint>[]} */
  const columns = [
    { name: "step", title: "Step", numeric: true, cell: (row) => row.step },
    { name: "epoch", title: "Epoch", numeric: true, cell: (row) => row.epoch },
    { name: "kind", title: "Content", cell: (row) => (row.kind === "student" ? `mmdet weights of the ${detectorOf(job)}${row.labels.length ? `: ${row.labels.join(" and ")}` : ""}` : "state of the training, to continue from") },
    { name: "mAP", title: "mAP", numeric: true, cell: (row) => points(row.metrics?.bbox_mAP) },
    { name: "bytes", title: "Size", numeric: true, cell: (row) => bytes(row.bytes) },
    { name: "sha256", title: "SHA-256", cell: (row) => html`<${Hash} value=${row.sha256} />` },
    { name: "created", title: "Written", cell: (row) => html`<${Ago} at=${row.created_at} />` },
    { name: "download", title: "Download", cell: (row) => html`<${Download} path=${`/checkpoints/${row.id}/content`} name=${`${row.kind}-step-${row.step}.pth`} />` },
  ];
  return html`<${Loading} resource=${checkpoints}>${(/** @type {{data: Checkpoint[]}} */ { data }) => html`
    <${Table} label="Checkpoints" columns=${columns} rows=${data} rowKey=${(/** @type {Checkpoint} */ row) => row.id}
      empty=${job.is_terminal ? "The job has no checkpoints." : "No checkpoints yet: a job writes them while it trains."} />`}<//>`;
}

/** @param {{path: string, name: string}} props */
export const Download = ({ path, name }) => html`<${ActionButton} title=${`Download ${name}`} onClick=${() => attempt(() => download(path, name))}>Download<//>`;
