// @ts-check
/** Exports of a student: start one, and how its files compare with the student. */
import { download, get, post } from "../../api.js";
import { ActionButton, Ago, Copy, JobLink, ProgressBar, Status } from "../../components/basics.js";
import { Table } from "../../components/table.js";
import { attempt } from "../../components/toast.js";
import { FORMATS } from "../../components/try_it.js";
import { NONE, bytes, milliseconds, plural, points, range, signed, words } from "../../format.js";
import { html, useState } from "../../html.js";
import { isBusy } from "../../limits.js";
import { useResource } from "../../resource.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */
/** @typedef {import("../../types/api").components["schemas"]["Export"]} Export */
/** @typedef {import("../../types/api").components["schemas"]["FileReport"]} FileReport */

/** @param {{exports: Export[], onChange: () => void}} props */
export function ExportList({ exports, onChange }) {
  const firstDone = exports.findIndex((row) => row.status === "succeeded");
  const shown = exports.slice(0, firstDone < 0 ? undefined : firstDone + 1);
  const older = exports.slice(shown.length);
  if (!exports.length) return html`<p class="empty">No export yet. An export turns the detector into ONNX files, from the image to its boxes, and compares each with the detector on the validation images.</p>`;
  return html`
    ${shown.map((row) => html`<${OneExport} key=${row.job_id} row=${row} onChange=${onChange} />`)}
    ${older.length > 0 && html`<details><summary>Older exports (${older.length})</summary>${older.map((row) => html`<${OneExport} key=${row.job_id} row=${row} onChange=${onChange} />`)}</details>`}`;
}

/** @param {{row: Export, onChange: () => void}} props */
function OneExport({ row, onChange }) {
  const cancel = async () => { await attempt(() => post(`/jobs/${row.job_id}/cancel`), "The export is being cancelled."); onChange(); };
  const { settings, report } = row;
  return html`
    <div class="row">
      ${report && row.status === "succeeded" ? html`<${Outcome} files=${report.files} />` : html`<${Status} status=${row.status} />`}
      <span><${JobLink} id=${row.job_id} name="this export" /> <span class="muted"><${Ago} at=${row.created_at} />; ${settings.formats.join(", ")}, ${settings.input_size} input size</span></span>
      ${!row.finished_at && html`<${ActionButton} confirm="Cancel this export?" onClick=${cancel}>Cancel<//>`}
    </div>
    ${!row.finished_at && html`<${Running} id=${row.job_id} />`}
    ${row.error && html`<p class="problem"><strong>${row.error.message}</strong> ${row.error.hint}</p>`}
    ${report && row.status === "succeeded" && html`
      <${Files} row=${row} report=${report} />
      ${report.files[0]?.nothing_to_compare && html`<p class="warn">${report.files[0].nothing_to_compare}</p>`}
      ${report.files.filter((file) => !file.passed && !file.nothing_to_compare).map((file) => html`<${NotPassed} file=${file} report=${report} isFixed=${settings.input_size === "fixed"} />`)}
      <p class="hint">Compared on ${report.images} validation images. A file passes if it loses at most the allowed points of mAP.
        Latency is the median for one image on the CPU, one thread; the files' one includes scaling the image. Other jobs on the machine slow it down: compare within one table.</p>
      ${[report, ...report.files].some(({ load }) => isBusy(load)) && html`<p class="warn">busy: measured on a busy machine; other work made the time longer. Export again while it is idle.</p>`}
      <${HowToRun} row=${row} report=${report} />`}`;
}

/** How far an export is, or why it waits. @param {{id: string}} props */
function Running({ id }) {
  const job = useResource((signal) => get(`/jobs/${id}`, {}, signal), [id], 3).data;
  if (!job) return null;
  const fraction = job.progress?.phase_fraction;
  return html`<p role="status">${job.status === "running"
    ? html`${words(job.phase ?? "starting")} ${typeof fraction === "number" && html`<${ProgressBar} value=${fraction} label="Progress of the export" />`}`
    : `${job.status_reason?.message ?? ""} ${job.status_reason?.hint ?? ""}`}</p>`;
}

/** @typedef {NonNullable<Export["report"]>} Report */

/** @param {{row: Export, report: Report}} props */
function Files({ row, report }) {
  /** @type {import("../../components/table.js").Column<FileReport | null>[]} */
  const columns = [
    { name: "file", title: "File", cell: (file) => html`<span class="together">${file ? html`<code>${file.name}</code>` : "in PyTorch"}</span>` },
    { name: "size", title: "Size", numeric: true, cell: (file) => bytes(file?.bytes) },
    { name: "mAP", title: "mAP", numeric: true, cell: (file) => points((file ?? report).metrics.bbox_mAP) },
    { name: "loss", title: "Loss in points", numeric: true, cell: (file) => (file ? signed(file.drop, 2) : NONE) },
    { name: "interval", title: "95 % interval", numeric: true, cell: (file) => range(file?.drop_interval, 2) },
    { name: "missing", title: "Lost boxes", numeric: true, cell: (file) => (file ? `${file.missing} of ${file.compared}` : NONE) },
    { name: "latency", title: "Latency", numeric: true, cell: (file) => html`${milliseconds((file ?? report).latency_ms)}${isBusy((file ?? report).load) && html` <span class="warn" title="Measured on a busy machine">busy</span>`}` },
    { name: "memory", title: "Memory", numeric: true, cell: (file) => (file?.peak_mb ? bytes(1e6 * file.peak_mb) : NONE) },
    { name: "passed", title: "Passed", cell: (file) => (file ? html`<${Passed} file=${file} />` : NONE) },
    { name: "download", title: "Download", cell: (file) => file && html`<${Save} job=${row.job_id} name=${file.name} />` },
  ];
  return html`<${Table} label="Exported files" columns=${columns} rows=${[null, ...report.files]} rowKey=${(/** @type {FileReport | null} */ file) => file?.name ?? "student"} />`;
}

/** @param {{file: FileReport}} props */
function Passed({ file }) {
  if (file.nothing_to_compare) return html`<span class="warn">nothing to compare</span>`;
  const reason = `loss ${signed(file.drop, 2)} of at most ${points(file.max_drop, 2)}`;
  return html`<strong class=${file.passed ? "good" : "bad"}>${file.passed ? "✓ yes" : "✕ no"}</strong> <small>${reason}</small>`;
}

/** How many files passed. @param {{files: FileReport[]}} props */
function Outcome({ files }) {
  if (files.every((file) => file.nothing_to_compare)) return html`<strong class="warn">! Nothing to compare</strong>`;
  const passed = files.filter((file) => file.passed).length;
  return html`<strong class=${passed === files.length ? "good" : "bad"}>${passed === files.length ? "✓" : "✕"} ${passed} of ${plural(files.length, "file")} passed</strong>`;
}

/** What to do about a file that did not pass. @param {{file: FileReport, report: Report, isFixed: boolean}} props */
function NotPassed({ file, report, isFixed }) {
  const fp32 = report.files.find((other) => other.format === "onnx");
  return html`<details open><summary><code>${file.name}</code> did not pass: what to do</summary>
    ${(isFixed || file.format === "onnx-no-nms") && html`<p>The fixed input size may be the cause: images of another aspect ratio than most are padded. Export ${isFixed ? "with the input size “any”" : "as onnx"} if the runtime allows it, and compare.</p>`}
    ${file.format === "onnx-int8" && html`<p>${fp32?.passed ? "Use the fp32 file, raise" : "Raise"} the number of calibration images if the training images differ much, or choose a backbone with ReLU or ReLU6.</p>`}
    ${file.format === "onnx" && !isFixed && html`<p>This should not happen with images of the training size: look at the largest images. If the loss is acceptable on the device, allow it under “Largest loss”.</p>`}
    ${file.worst_layers.length > 0 && html`<p>The layers that lose most, by signal to noise:</p>
      <ul>${file.worst_layers.map((layer) => html`<li><code>${layer.tensor}</code>: ${layer.signal_to_noise.toFixed(1)} dB</li>`)}</ul>`}
  </details>`;
}

/** @param {{job: string, name: string}} props */
const Save = ({ job, name }) => html`<${ActionButton} title=${`Download ${name}`} onClick=${() => attempt(() => download(`/jobs/${job}/artifacts/${name}`, name))}>Download<//>`;

/** @param {{row: Export, report: Report}} props */
function HowToRun({ row, report }) {
  const file = (report.files.findLast((item) => item.passed) ?? report.files[0])?.name ?? "student.onnx";
  const command = `pip install numpy pillow onnxruntime\npython frs_runner.py ${file} image.jpg --save boxes.png`;
  return html`
    <h3>Run it on the device</h3>
    <p>Download the file and the runner into one folder, then:</p>
    <div class="row"><${Save} job=${row.job_id} name="frs_runner.py" /> <span class="muted"><code>frs_runner.py</code></span> <${Copy} text=${command} label="Copy the commands" /></div>
    <pre tabindex="0">${command}</pre>`;
}

/** @param {{job: Job, isFirst: boolean, onStarted: () => void}} props */
export function ExportForm({ job, isFirst, onStarted }) {
  const [formats, setFormats] = useState(["onnx", "onnx-int8"]);
  const [drop, setDrop] = useState("");
  const [size, setSize] = useState("dynamic");
  const [images, setImages] = useState("64");
  const toggle = (/** @type {string} */ name) => setFormats(FORMATS.map(([format]) => format).filter((format) => formats.includes(format) !== (format === name)));
  const start = async () => {
    const body = { formats, input_size: size, max_drop: drop === "" ? null : Number(drop), calibration_images: Number(images) };
    if (await attempt(() => post(`/jobs/${job.id}/exports`, body), "The export is in the queue.")) onStarted();
  };
  return html`<details open=${isFirst}><summary>Start an export</summary>
    <div class="row" style=${{ marginTop: "0.5rem" }}>
      ${FORMATS.map(([name, title]) => html`<label><input type="checkbox" checked=${formats.includes(name)} onChange=${() => toggle(name)} /> ${title}</label>`)}
      <label>Largest loss in points <input type="number" min="0" max="100" step="0.01" size="8" placeholder="0.05 / 0.5" value=${drop}
        title="Empty: 0.05 for fp32 files, 0.5 for onnx-int8" onInput=${(/** @type {any} */ event) => setDrop(event.target.value)} /></label>
      <label>Input size <select value=${size} onChange=${(/** @type {any} */ event) => setSize(event.target.value)}>
        <option value="dynamic">any (dynamic)</option><option value="fixed">one size (fixed), for runtimes that need it</option></select></label>
      ${formats.includes("onnx-int8") && html`<label>Calibration images <input type="number" min="1" max="1000" size="5" value=${images}
        onInput=${(/** @type {any} */ event) => setImages(event.target.value)} /></label>`}
      <${ActionButton} class="primary" disabled=${!formats.length || !images} onClick=${start}>Start export<//>
    </div>
    <p class="hint">${job.is_terminal ? "It takes one to three minutes for a small detector, after the jobs before it in the queue." : "The export waits until the job has ended."}${" "}
      Or on the command line: <code>frs export ${job.id}</code></p>
  </details>`;
}
