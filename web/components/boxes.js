// @ts-check
/** A picture with boxes that are drawn over it in the browser, coloured by class. */
import { Fragment, html, useMemo, useState } from "../html.js";

/**
 * @typedef {{x: number, y: number, width: number, height: number, category: string, score?: number, isWrong?: boolean, note?: string}} Box
 * Coordinates are in pixels of the picture. A wrong box is dashed.
 */

/** Colours that colour-blind readers can tell apart on photographs (Okabe and Ito, without black). */
const COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2"];
/** Classes that a legend names at most. */
const MAX_NAMED = 21;

/** Colour of a class; from the eighth class on the colours come again. @param {string} name @param {readonly string[]} classes */
const colourOf = (name, classes) => COLOURS[Math.max(0, classes.indexOf(name)) % COLOURS.length];

/** @param {{source: string | null, width: number, height: number, boxes: Box[], classes: readonly string[], alt: string, isLabelled?: boolean}} props */
export function Boxes({ source, width, height, boxes, classes, alt, isLabelled = true }) {
  const [chosen, setChosen] = useState(/** @type {Box | null} */ (null));
  const size = 3.4 * Math.max(width, height) / 100;
  const sorted = useMemo(() => [...boxes].sort((a, b) => b.width * b.height - a.width * a.height), [boxes]); // a small box is above a large one
  const labels = useMemo(() => (isLabelled ? fittingLabels(sorted, width, height, size) : []), [sorted, width, height, isLabelled]);
  const shown = chosen && boxes.includes(chosen) ? [labelOf(chosen, width, size)] : labels;
  return html`
    <svg class="boxes" viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${`${alt}, ${boxes.length} boxes`} onMouseLeave=${() => setChosen(null)}>
      <rect width=${width} height=${height} class="missing" />
      ${source && html`<image href=${source} width=${width} height=${height} />`}
      ${sorted.map((box) => html`<rect class=${`box${box.isWrong ? " wrong" : ""}${box === chosen ? " chosen" : ""}`} stroke=${colourOf(box.category, classes)}
        x=${box.x} y=${box.y} width=${Math.max(0, box.width)} height=${Math.max(0, box.height)} onMouseEnter=${() => setChosen(box)} onClick=${() => setChosen(box)} />`)}
      ${shown.map((label) => html`<${Fragment}>
        <rect class="box-label-back" x=${label.x} y=${label.y} width=${label.width} height=${label.height} fill=${colourOf(label.box.category, classes)} />
        <text class="box-label" x=${label.x + size / 4} y=${label.y + 0.8 * label.height} font-size=${size}>${label.text}</text>
      <//>`)}
    </svg>`;
}

/** The classes with their colours. @param {{classes: readonly string[], note?: any}} props */
export function ClassLegend({ classes, note }) {
  return html`<p class="hint legend">${classes.slice(0, MAX_NAMED).map((name) => html`<span key=${name}><span class="swatch" style=${{ background: colourOf(name, classes) }} aria-hidden="true"></span> ${name}</span>`)}
    ${classes.length > MAX_NAMED && html`<span>and ${classes.length - MAX_NAMED} other classes</span>`}
    ${classes.length > COLOURS.length && html`<span>Colours come again: point at a box for its class.</span>`}${note && html`<span>${note}</span>`}</p>`;
}

/** @typedef {{box: Box, text: string, x: number, y: number, width: number, height: number}} Label */

/** The label of a box, above it if there is room, inside the picture. @param {Box} box @param {number} imageWidth @param {number} size @returns {Label} */
function labelOf(box, imageWidth, size) {
  const text = [box.category, box.note, box.score?.toFixed(2)].filter(Boolean).join(" ");
  const width = (0.58 * text.length + 0.5) * size, height = 1.25 * size;
  return { box, text, width, height, x: Math.max(0, Math.min(box.x, imageWidth - width)), y: box.y >= height ? box.y - height : box.y };
}

/** Labels that are no wider than their box and cover no other, those of surer boxes first. @param {Box[]} boxes @param {number} width @param {number} height @param {number} size */
function fittingLabels(boxes, width, height, size) {
  /** @type {Label[]} */
  const labels = [];
  for (const box of [...boxes].sort((a, b) => (b.score ?? 1) - (a.score ?? 1))) {
    const label = labelOf(box, width, size);
    const covers = (/** @type {Label} */ other) => label.x < other.x + other.width && other.x < label.x + label.width && label.y < other.y + other.height && other.y < label.y + label.height;
    if (label.width <= 1.3 * box.width && label.y + label.height <= height && !labels.some(covers)) labels.push(label);
  }
  return labels;
}
