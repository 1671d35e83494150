// @ts-check
/** The teacher's richness over validation images, a level at a time: where the student is asked to follow its teacher. */
import { html, useEffect, useRef } from "../../../html.js";
import { route, setQuery } from "../../../router.js";

/** Viridis at 0, 0.25, 0.5, 0.75 and 1. */
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

/** @param {{data: any}} props `data` is the job's richness.json. */
export function Richness({ data }) {
  const strides = data.images[0]?.levels.map((/** @type {any} */ level) => level.stride) ?? [];
  const { level = "0", opacity = "0.65" } = route.value.query;
  const index = Math.min(Number(level) || 0, strides.length - 1);
  return html`
    <p class="hint">Richness is the teacher's highest class score at each location of a pyramid level. It weighs the terms of the distillation loss.</p>
    <div class="row">
      <label>Level <input type="range" min="0" max=${strides.length - 1} step="1" value=${index}
        onInput=${(/** @type {any} */ event) => setQuery({ level: event.target.value })} /> stride ${strides[index]}</label>
      <label>Opacity <input type="range" min="0" max="1" step="0.05" value=${opacity}
        onInput=${(/** @type {any} */ event) => setQuery({ opacity: event.target.value })} /> ${Number(opacity).toFixed(2)}</label>
      <span>0 <span class="scale" aria-hidden="true"></span> 1</span>
    </div>
    <div class="grid">${data.images.map((/** @type {any} */ image, /** @type {number} */ number) => html`
      <section class="card" key=${number}><${Overlay} image=${image} level=${image.levels[index]} opacity=${Number(opacity)} /></section>`)}</div>`;
}

/** @param {{image: any, level: any, opacity: number}} props */
function Overlay({ image, level, opacity }) {
  const canvas = useRef(/** @type {any} */ (null));
  const values = level.values;
  useEffect(() => draw(canvas.current, level), [values]);
  const mean = meanOf(level);
  return html`
    <figure class="overlay" style=${{ aspectRatio: `${image.width} / ${image.height}` }}>
      <img src=${`data:image/jpeg;base64,${image.jpeg}`} alt="Validation image" />
      <canvas ref=${canvas} role="img" aria-label=${`Richness at stride ${level.stride}, mean ${mean}`} style=${{
        opacity, width: `${100 * level.columns * level.stride / image.width}%`, height: `${100 * level.rows * level.stride / image.height}%` }}></canvas>
    </figure>
    <p class="hint">stride ${level.stride}, ${level.columns} x ${level.rows} locations, mean richness ${mean}</p>`;
}

/** Mean richness of a level. @param {any} level */
function meanOf(level) {
  const bytes = decode(level.values);
  return (bytes.reduce((sum, value) => sum + value, 0) / bytes.length / 255).toFixed(3);
}

/** Draw one pixel a location; the browser scales it smoothly. @param {HTMLCanvasElement} canvas @param {any} level */
function draw(canvas, level) {
  canvas.width = level.columns;
  canvas.height = level.rows;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const pixels = context.createImageData(level.columns, level.rows);
  decode(level.values).forEach((value, index) => pixels.data.set([...colour(value / 255), 255], 4 * index));
  context.putImageData(pixels, 0, 0);
}

/** @param {string} base64 */
const decode = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

/** @param {number} value 0 to 1 */
function colour(value) {
  const position = value * (STOPS.length - 1);
  const index = Math.min(Math.floor(position), STOPS.length - 2);
  return STOPS[index].map((low, channel) => Math.round(low + (position - index) * (STOPS[index + 1][channel] - low)));
}
