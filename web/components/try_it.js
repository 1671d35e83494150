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
 * @typedef {{role: string, title: string, path?: string, why?: string, startExport?: () => Promise<any>}} Source
 * A detector: `path` is that of its predictions; without one, `why` says what is missing. `startExport` starts the
 * export that predictions need.
 */
/** @typedef {{file: Blob, name: string, url: string, width: number, height: number, truth?: import("./boxes.js").Box[]}} Picture */

const TYPES = "image/jpeg,image/png,image/bmp,image/webp";
const MAX_BYTES = 20_000_000;

/** @param {{sources: Source[], dataset?: string | null}} props `dataset`: id or name of the data set whose validation images can be tried. */
export function TryIt({ sources, dataset }) {
  const [picture, setPicture] = useState(/** @type {Picture | null} */ (null));
  const [problem, setProblem] = useState("");
  const score = Number(route.value.query.score ?? 0.3);
  const format = route.value.query.format ?? "onnx";
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
        <option value="onnx">fp32 (onnx)</option><option value="onnx-int8">8-bit (onnx-int8)</option>
        <option value="onnx-no-nms">without NMS (onnx-no-nms)</option></select></label>
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
  const [exporting, setExporting] = useState(/** @type {any} */ (null));
  const prediction = useResource(async (signal) => {
    const options = { query: { threshold: 0.05, format }, body: picture.file, headers: { "Content-Type": picture.file.type }, signal };
    return (await send("POST", path, options)).json();
  }, [path, picture, format]);
  const { data, error } = prediction;

  if (error?.code === "not_exported") {
    const start = async () => setExporting(await attempt(() => /** @type {() => Promise<any>} */ (source.startExport)(), "The export was started."));
    return html`<${Title} source=${source} /><p>${error.message}</p>
      ${exporting
        ? html`<${Waiting} job=${exporting} onEnded=${prediction.reload} />`
        : source.startExport ? html`<${ActionButton} onClick=${start}>Export it now<//>` : html`<p class="hint">${error.hint}</p>`}`;
  }
  if (error) return html`<${Title} source=${source} /><${Problem} error=${error} onRetry=${prediction.reload} />`;
  const { width, height } = data ?? picture;
  const boxes = (data?.results[0].objects ?? []).filter((/** @type {any} */ object) => object.score >= score).map(toBox);
  return html`
    <${Title} source=${source} text=${data ? `${plural(boxes.length, "object")}, ${milliseconds(data.results[0].milliseconds)}` : "running; the first picture takes a few seconds"} />
    <${Boxes} source=${picture.url} width=${width} height=${height} boxes=${boxes} classes=${classes} alt=${source.title} />`;
}

/** A started export until it has ended. @param {{job: any, onEnded: () => void}} props */
function Waiting({ job, onEnded }) {
  const [isOpen, setOpen] = useState(true);
  const current = useResource((signal) => get(`/jobs/${job.id}`, {}, signal), [job.id, isOpen], isOpen ? 3 : 0);
  const { status, is_terminal: isTerminal, error } = current.data ?? job;
  useEffect(() => { if (isTerminal) { setOpen(false); onEnded(); } }, [isTerminal]);
  return html`<p role="status">The export <${JobLink} id=${job.id} name=${job.name} /> is ${status}. ${isTerminal ? `${error?.message ?? ""} ${error?.hint ?? ""}` : "The picture follows by itself."}</p>`;
}

/** @param {import("../types/api").components["schemas"]["DetectedObject"]} object @returns {import("./boxes.js").Box} */
function toBox({ box: [left, top, right, bottom], score, label }) {
  return { x: left, y: top, width: right - left, height: bottom - top, score, category: label };
}
