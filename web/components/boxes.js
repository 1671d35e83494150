// @ts-check
/** A picture with boxes that are drawn over it in the browser. */
import { Fragment, html } from "../html.js";

/**
 * @typedef {{x: number, y: number, width: number, height: number, label: string, score?: number, kind?: "truth" | "right" | "wrong" | "box"}} Box
 * Coordinates are in pixels of the picture; `kind` decides colour and line.
 */

/** @param {{source: string | null, width: number, height: number, boxes: Box[], alt: string}} props */
export function Boxes({ source, width, height, boxes, alt }) {
  const scale = Math.max(width, height) / 100;
  return html`
    <svg class="boxes" viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${`${alt}, ${boxes.length} boxes`}>
      <rect width=${width} height=${height} class="missing" />
      ${source && html`<image href=${source} width=${width} height=${height} />`}
      ${boxes.map((box) => html`<${Fragment}>
        <rect class=${`box ${box.kind ?? "box"}`} x=${box.x} y=${box.y} width=${Math.max(0, box.width)} height=${Math.max(0, box.height)} />
        <text class=${`box-label ${box.kind ?? "box"}`} x=${box.x} y=${Math.max(box.y - 0.6 * scale, 3 * scale)} font-size=${3.2 * scale}>${box.label}${box.score === undefined ? "" : ` ${box.score.toFixed(2)}`}</text>
      <//>`)}
    </svg>`;
}
