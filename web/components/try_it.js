// @ts-check
/** Run exported detectors on a picture and show what each finds. */
import { get, send } from "../api.js";
import { milliseconds, plural } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { useResource } from "../resource.js";
import { route, setQuery } from "../router.js";
import { ActionButton, JobLink, Problem } from "./basics.js";
import { Boxes, ClassLegend } from "./boxes.js";
import { FileDrop } from "./files.js";
import { attempt } from "./toast.js";

/** @typedef {import("../types/api").components["schemas"]["Prediction"]} Prediction */
/**
 * @typedef {{role: string, title: string, path?: string, why?: string, startExport?: (format: string) => Promise<any>}} Source
 * A detector: `path` is that of its predictions; without one, `why` says what is missing. `startExport` starts the
 * export that predictions with a file of the format need.
 */
/** @typedef {{file: Blob, name: string, url: string, width: number, height: number, truth?: import("./boxes.js").Box[]}} Picture */

/** Formats of exported files, with their titles. */
export const FORMATS = [["onnx", "fp32 (onnx)"], ["onnx-int8", "8-bit (onnx-int8)"], ["onnx-no-nms", "without NMS (onnx-no-nms)"]];
const TYPES = "image/jpeg,image/png,image/bmp,image/webp";
const MAX_BYTES = 20_000_000;

/**
 * @param {{sources: Source[], dataset?: string | null, formats?: string[]}} props `dataset`: id or name of the data set whose validation images
 * can be tried; `formats`: those to choose from, default all
 */
export function TryIt({ sources, dataset, formats = FORMATS.map(([name]) => name) }) {
  const [picture, setPicture] = useState(/** @type {Picture | null} */ (null));
  const [problem, setProblem] = useState("");
  const score = Number(route.value.query.score ?? 0.3);
  const format = formats.find((name) => name === route.value.query.format) ?? formats[0];
  const known = useResource(async (signal) => (dataset ? get(`/datasets/${encodeURIComponent(dataset)}`, {}, signal) : null), [dataset]);
  const classes = /** @type {string[]} */ (known.data?.classes ?? []);
  useEffect(() => () => { if (picture) URL.revokeObjectURL(picture.url); }, [picture]);

  /** @param {Blob} file @param {string} name @param {import("./boxes.js").Box[]} [truth] */
  async function choose(file, name, truth) {
    setProblem("");
    if (!TYPES.split(",").includes(file.type)) return setProblem("This is no JPEG, PNG, BMP or WebP image.");
    if (file.size > MAX_BYTES) return setProblem("The picture has more than 20 MB. Choose a smaller one.");
    const image = new Image();
    image.src = URL.createObjectURL(file);
    try {
      await image.decode();
    } catch {
      URL.revokeObjectURL(image.src);
      return setProblem("The browser cannot read this picture.");
    }
    setPicture({ file, name, url: image.src, width: image.naturalWidth, height: image.naturalHeight, truth });
  }

  return html`
    <${FileDrop} label="Drop a picture here, or choose one" hint="JPEG, PNG, BMP or WebP of at most 20 MB. It is not kept." accept=${TYPES} file=${null}
      onFile=${(/** @type {File} */ file) => choose(file, file.name)} />
    <div class="row">
      ${dataset && html`<${ValidationImage} dataset=${dataset} onPicture=${choose} />`}
      <label>File <select value=${format} onChange=${(/** @type {any} */ event) => setQuery({ format: event.target.value })}>
        ${FORMATS.filter(([name]) => formats.includes(name)).map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></label>
      <label>Lowest score <input type="range" min="0.05" max="0.95" step="0.01" value=${score}
        onInput=${(/** @type {any} */ event) => setQuery({ score: event.target.value })} /> <output>${score.toFixed(2)}</output></label>
    </div>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${picture && html`<div class="grid narrow">
      ${picture.truth && html`<figure class="found"><figcaption><strong>Ground truth</strong> <span class="muted">${plural(picture.truth.length, "object")}</span></figcaption>
        <${Boxes} source=${picture.url} width=${picture.width} height=${picture.height} boxes=${picture.truth} classes=${classes} alt="Ground truth" /></figure>`}
      ${sources.map((source) => html`<${Found} key=${source.role} source=${source} picture=${picture} classes=${classes} score=${score} format=${format} />`)}
    </div>
    <${ClassLegend} classes=${classes} note="Point at a box for its class and score." />`}`;
}

/** Take the validation images one after another. @param {{dataset: string, onPicture: (file: Blob, name: string, truth: import("./boxes.js").Box[]) => void}} props */
function ValidationImage({ dataset, onPicture }) {
  const [cursor, setCursor] = useState(/** @type {string | null} */ (null));
  const path = `/datasets/${encodeURIComponent(dataset)}/images`;
  const take = () => attempt(async () => {
    const page = await get(path, { split: "val", limit: 1, cursor });
    if (!page.data.length) return;
    const [image] = page.data;
    const blob = await (await send("GET", `${path}/${image.id}/content`, { query: { split: "val" } })).blob();
    setCursor(page.next_cursor);
    onPicture(blob, image.file_name, image.objects.map((/** @type {any} */ { bbox: [x, y, width, height], category }) => ({ x, y, width, height, category })));
  });
  return html`<${ActionButton} onClick=${take}>Take the next validation image<//>`;
}

/** What one detector finds. @param {{source: Source, picture: Picture, classes: string[], score: number, format: string}} props */
function Found({ source, ...props }) {
  return html`<figure class="found">
    ${source.path
      ? html`<${Run} source=${source} path=${source.path} ...${props} />`
      : html`<${Title} source=${source} /><p class="empty">${source.why}</p>`}
  </figure>`;
}

/** @param {{source: Source, text?: string}} props */
const Title = ({ source, text = "" }) => html`<figcaption><span class=${`swatch of-${source.role}`} aria-hidden="true"></span> <strong>${source.title}</strong> <span class="muted">${text}</span></figcaption>`;

/** @param {{source: Source, path: string, picture: Picture, classes: string[], score: number, format: string}} props */
function Run({ source, path, picture, classes, score, format }) {
  const [exports, setExports] = useState(/** @type {Record<string, any>} by format, running or failed */ ({}));
  const [succeeded, setSucceeded] = useState(0);
  const prediction = useResource(async (signal) => {
    const options = { query: { threshold: 0.05, format }, body: picture.file, headers: { "Content-Type": picture.file.type }, signal };
    return (await send("POST", path, options)).json();
  }, [path, picture, format, succeeded]);
  const { data, error } = prediction;

  if (error?.code === "not_exported") {
    const { startExport } = source, job = exports[format];
    const set = (/** @type {any} */ changed) => setExports((before) => ({ ...before, [format]: changed }));
    const start = async () => set(await attempt(() => /** @type {(format: string) => Promise<any>} */ (startExport)(format), "The export was started."));
    const end = (/** @type {any} */ ended) => {
      set(ended.status === "succeeded" ? null : ended);
      if (ended.status === "succeeded") setSucceeded((count) => count + 1);
    };
    return html`<${Title} source=${source} /><p>${error.message}</p>
      ${job && html`<${Waiting} key=${job.id} job=${job} onEnded=${end} />`}
      ${!startExport ? html`<p class="hint">${error.hint}</p>` : (!job || job.is_terminal) && html`<${ActionButton} onClick=${start}>Export it now<//>`}`;
  }
  if (error) return html`<${Title} source=${source} /><${Problem} error=${error} onRetry=${prediction.reload} />`;
  const { width, height } = data ?? picture;
  const boxes = (data?.results[0].objects ?? []).filter((/** @type {any} */ object) => object.score >= score).map(toBox);
  return html`
    <${Title} source=${source} text=${data ? `${plural(boxes.length, "object")}, ${milliseconds(data.results[0].milliseconds)}` : "running; the first picture takes a few seconds"} />
    <${Boxes} source=${picture.url} width=${width} height=${height} boxes=${boxes} classes=${classes} alt=${source.title} />`;
}

/** A started export, and why it failed. @param {{job: any, onEnded: (job: any) => void}} props */
function Waiting({ job, onEnded }) {
  const [isOpen, setOpen] = useState(true);
  const current = useResource((signal) => get(`/jobs/${job.id}`, {}, signal), [job.id, isOpen], isOpen ? 3 : 0);
  const newest = current.data ?? job;
  const { status, is_terminal: isTerminal, error } = newest;
  useEffect(() => { if (isTerminal) { setOpen(false); onEnded(newest); } }, [isTerminal]);
  return html`<p role="status">The export <${JobLink} id=${job.id} name=${job.name} /> is ${status}. ${isTerminal ? `${error?.message ?? ""} ${error?.hint ?? ""}` : "The picture follows by itself."}</p>`;
}

/** @param {import("../types/api").components["schemas"]["DetectedObject"]} object @returns {import("./boxes.js").Box} */
function toBox({ box: [left, top, right, bottom], score, label }) {
  return { x: left, y: top, width: right - left, height: bottom - top, score, category: label };
}
