// @ts-check
/** Upload of a data set as an archive. */
import { ApiError } from "../../api.js";
import { ActionButton, Problem } from "../../components/basics.js";
import { FileDrop, UploadProgress } from "../../components/files.js";
import { toast } from "../../components/toast.js";
import { html, useState } from "../../html.js";
import { go } from "../../router.js";
import { findByName, useUpload } from "../../upload.js";

/** @type {[RegExp, string][]} */
const MEDIA_TYPES = [[/\.zip$/i, "application/zip"], [/\.(tar\.gz|tgz)$/i, "application/gzip"], [/\.tar$/i, "application/x-tar"]];
const SUFFIX = /\.(zip|tar|tar\.gz|tgz)$/i;

export function UploadForm() {
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [name, setName] = useState("");
  const [fraction, setFraction] = useState("");
  const { progress, error, setError, start, cancel } = useUpload("/datasets/upload");

  /** @param {File} file */
  function choose(file) {
    setFile(file);
    setError(SUFFIX.test(file.name) ? null : new ApiError(0, {
      code: "archive_unreadable", detail: `${file.name} is no .zip, .tar or .tar.gz file.`,
      hint: "Pack the folder of images and annotations as a .zip file and drop it here.",
    }));
    if (!name) setName(file.name.replace(SUFFIX, "").replace(/[^\p{L}\p{N} ._@-]/gu, "-").replace(/^[ ._@-]+/, "").slice(0, 100));
  }

  async function submit() {
    const archive = /** @type {File} */ (file);
    const type = MEDIA_TYPES.find(([suffix]) => suffix.test(archive.name))?.[1] ?? "application/zip";
    try {
      const other = await findByName("/datasets", name.trim());
      if (other && other.status !== "has_problems") throw nameTaken();
    } catch (error) {
      return setError(error);
    }
    const row = await start(archive, type, { name: name.trim(), val_fraction: fraction });
    if (!row) return;
    toast(`${row.name} was uploaded.`);
    go(["datasets", row.id]);
  }

  const ready = file && SUFFIX.test(file.name) && name.trim();
  return html`
    <${FileDrop} label="Drop an archive here, or choose one" accept=".zip,.tar,.gz,.tgz" file=${file} onFile=${choose} disabled=${progress !== null}
      hint=".zip, .tar or .tar.gz in COCO, Pascal VOC or YOLO layout, as annotation tools export them" />
    ${file && html`
      <div class="field"><label for="upload-name">Name</label>
        <input id="upload-name" value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></div>
      <div class="field"><label for="upload-fraction">Validation split</label>
        <select id="upload-fraction" value=${fraction} onChange=${(/** @type {any} */ event) => setFraction(event.target.value)}>
          <option value="">as in the archive</option>
          ${[0.05, 0.1, 0.2, 0.3].map((value) => html`<option value=${value}>${100 * value} % of the training images, if the archive has none</option>`)}
        </select></div>`}
    ${error && html`<${Problem} error=${error} />`}
    ${progress
      ? html`<${UploadProgress} progress=${progress} after="The service unpacks and checks it." onCancel=${cancel} />`
      : file && html`<${ActionButton} class="primary" disabled=${!ready} onClick=${submit}>Upload<//>`}`;
}

function nameTaken() {
  return new ApiError(409, { code: "name_taken", detail: "A data set of this name exists already.", hint: "Choose another name, or delete that data set first." });
}
