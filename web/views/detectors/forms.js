// @ts-check
/** Register detectors: upload weights, or name the student of a job. */
import { ApiError, get, post } from "../../api.js";
import { ActionButton, Problem } from "../../components/basics.js";
import { FileDrop, UploadProgress } from "../../components/files.js";
import { attempt, toast } from "../../components/toast.js";
import { points } from "../../format.js";
import { html, useMemo, useState } from "../../html.js";
import { useResource } from "../../resource.js";
import { go } from "../../router.js";
import { findByName, useUpload } from "../../upload.js";

const EXAMPLE = JSON.stringify({ architecture: "gfl", backbone: { depth: 50 } }, null, 2);

export function UploadForm() {
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [name, setName] = useState("");
  const [description, setDescription] = useState(EXAMPLE);
  const [classes, setClasses] = useState("");
  const { progress, error, setError, start, cancel } = useUpload("/detectors/upload");
  const invalid = useMemo(() => jsonError(description), [description]);

  /** @param {File} file */
  function choose(file) {
    setFile(file);
    setError(null);
    if (!name) setName(file.name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N} ._@-]/gu, "-").replace(/^[ ._@-]+/, "").slice(0, 100));
  }

  async function submit() {
    try {
      if (await findByName("/detectors", name.trim())) throw nameTaken();
    } catch (error) {
      return setError(error);
    }
    const query = { name: name.trim(), description: JSON.stringify(JSON.parse(description)), classes: classes.trim() };
    const row = await start(/** @type {File} */ (file), "application/octet-stream", query);
    if (!row) return;
    toast(`${row.name} was uploaded.`);
    go(["detectors", row.id]);
  }

  return html`
    <${FileDrop} label="Drop a weights file here, or choose one" hint="a torch file with a state_dict (.pth), or .safetensors" accept=".pth,.pt,.bin,.safetensors,.ckpt"
      file=${file} onFile=${choose} disabled=${progress !== null} />
    ${file && html`
      <div class="field"><label for="detector-name">Name</label>
        <input id="detector-name" value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></div>
      <div class="field"><label for="detector-description">Description as JSON</label>
        <textarea id="detector-description" rows="6" value=${description} aria-invalid=${Boolean(invalid)} aria-describedby="detector-description-hint" spellcheck=${false}
          onInput=${(/** @type {any} */ event) => setDescription(event.target.value)}></textarea>
        <span id="detector-description-hint" class=${invalid ? "bad" : "hint"}>${invalid || html`The fields of <code>student</code> in a job (see the <a href="#/recipes">recipes</a>), or <code>${'{"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py"}'}</code>`}</span></div>
      <div class="field"><label for="detector-classes">Classes, in the order of the labels</label>
        <input id="detector-classes" value=${classes} placeholder="from the file, such as: cat, dog" onInput=${(/** @type {any} */ event) => setClasses(event.target.value)} /></div>`}
    ${error && html`<${Problem} error=${error} />`}
    ${progress
      ? html`<${UploadProgress} progress=${progress} after="The service stores it." onCancel=${cancel} />`
      : file && html`<${ActionButton} class="primary" disabled=${!name.trim() || Boolean(invalid)} onClick=${submit}>Upload<//>`}`;
}

/** @param {string} text */
function jsonError(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (/** @type {any} */ error) {
    return `This is no JSON: ${error.message}.`;
  }
}

function nameTaken() {
  return new ApiError(409, { code: "name_taken", detail: "A detector of this name exists already.", hint: "Choose another name, or delete that detector first." });
}

export function JobForm() {
  const jobs = useResource(loadJobs, []);
  const [job, setJob] = useState("");
  const [name, setName] = useState("");
  const submit = async () => {
    const row = await attempt(() => post("/detectors", { name: name.trim(), job }), "Registered.");
    if (row) go(["detectors", row.id]);
  };
  if (jobs.data?.length === 0) return html`<p class="empty">No job with a student has succeeded yet. <a href="#/new">New job</a></p>`;
  return html`
    <div class="field"><label for="detector-job">Job</label>
      <select id="detector-job" value=${job} onChange=${(/** @type {any} */ event) => setJob(event.target.value)}>
        <option value="">choose a job that has succeeded</option>
        ${(jobs.data ?? []).map((row) => html`<option value=${row.id}>${row.name ?? row.id} (${row.kind}${typeof row.mAP === "number" ? `, mAP ${points(row.mAP)}` : ""})</option>`)}</select></div>
    <div class="field"><label for="job-detector-name">Name</label>
      <input id="job-detector-name" value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></div>
    <${ActionButton} disabled=${!job || !name.trim()} onClick=${submit}>Register<//>`;
}

/** The newest jobs that trained a student. @returns {Promise<any[]>} */
async function loadJobs() {
  const pages = await Promise.all(["distill", "train", "quantize"].map((kind) => get("/jobs", { status: "succeeded", kind, limit: 100 })));
  return pages.flatMap((page) => page.data);
}
