// @ts-check
/** Images of a data set with their boxes. */
import { get } from "../../api.js";
import { Dialog, Problem } from "../../components/basics.js";
import { Boxes, ClassLegend } from "../../components/boxes.js";
import { useObjectUrl } from "../../components/files.js";
import { number, plural } from "../../format.js";
import { html, useEffect, useRef, useState } from "../../html.js";
import { route, setQuery } from "../../router.js";

/** @typedef {import("../../types/api").components["schemas"]["Dataset"]} Dataset */
/** @typedef {{bbox: [number, number, number, number], category: string, crowd: boolean}} ObjectBox */
/** @typedef {{id: number, file_name: string, width: number, height: number, objects: ObjectBox[]}} Picture */

const PAGE = 24;

/** @param {{dataset: Dataset}} props */
export function Pictures({ dataset }) {
  const { split = "val", class: category = "", image = "" } = route.value.query;
  const { pictures, more, loading, error, load } = usePictures(dataset.id, split);
  const shown = pictures.filter((picture) => !category || picture.objects.some((object) => object.category === category));
  const opened = shown.findIndex((picture) => String(picture.id) === image);
  useEffect(() => { if (image && opened < 0 && more && !loading && !error) load(); }, [image, opened, more, loading]);
  const open = (/** @type {number} */ index) => setQuery({ image: String(shown[index].id) });
  const step = (/** @type {KeyboardEvent} */ event) => {
    const next = opened + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0);
    if (next !== opened && shown[next]) open(next);
  };
  const classes = dataset.classes ?? [];
  const total = dataset.counts?.[/** @type {"train" | "val"} */ (split)]?.images ?? null;
  const source = (/** @type {Picture} */ picture) => `/datasets/${dataset.id}/images/${picture.id}/content`;
  return html`
    <div class="row">
      <label>Split <select value=${split} onChange=${(/** @type {any} */ event) => setQuery({ split: event.target.value, image: null })}>
        <option value="train">training</option><option value="val">validation</option></select></label>
      <label>Class <select value=${category} onChange=${(/** @type {any} */ event) => setQuery({ class: event.target.value, image: null })}>
        <option value="">all</option>${(dataset.classes ?? []).map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
      <span class="muted" role="status">${loading ? "Loading" : error ? "" : counted(shown.length, pictures.length, total, category)}</span>
      ${more && !error && html`<button disabled=${loading} onClick=${load}>Load ${PAGE} more</button>`}
    </div>
    <${ClassLegend} classes=${classes} />
    ${error && html`<${Problem} error=${error} onRetry=${load} />`}
    <div class="pictures">${shown.map((picture, index) => html`
      <button key=${picture.id} class="picture" onClick=${() => open(index)} aria-label=${`Show ${picture.file_name} larger`}>
        <${Picture} source=${source(picture)} split=${split} picture=${picture} classes=${classes} category=${category} labels=${false} />
        <span>${picture.file_name}<br /><span class="muted">${describe(picture)}</span></span>
      </button>`)}</div>
    ${!loading && !error && !shown.length && !more && html`<p class="empty">No image of this split shows the class. Choose another class or split.</p>`}
    ${more && !error && html`<button disabled=${loading} onClick=${load}>Load ${PAGE} more</button>`}
    ${opened >= 0 && html`<${Dialog} wide title=${shown[opened].file_name} onClose=${() => setQuery({ image: null })}>
      <${Large} key=${shown[opened].id} source=${source(shown[opened])} split=${split} picture=${shown[opened]} classes=${classes} category=${category} />
      <div class="row end" onKeyDown=${step}>
        <button disabled=${opened === 0} onClick=${() => open(opened - 1)}>Previous</button>
        <button disabled=${opened === shown.length - 1} onClick=${() => open(opened + 1)}>Next</button>
        <button onClick=${() => setQuery({ image: null })}>Close</button>
      </div>
    <//>`}`;
}

/** "24 of 87 images are loaded; 3 of them show the class". @param {number} shown @param {number} loaded @param {number | null} total @param {string} category */
function counted(shown, loaded, total, category) {
  const images = total !== null && total > loaded ? `${number(loaded)} of ${plural(total, "image")} are loaded` : plural(loaded, "image");
  return category ? `${images}; ${number(shown)} of them show the class` : images;
}

/** The images of a split, page by page. @param {string} id @param {string} split */
function usePictures(id, split) {
  const empty = { pictures: /** @type {Picture[]} */ ([]), cursor: /** @type {string | null} */ (null), loading: true, error: /** @type {any} */ (null) };
  const [state, setState] = useState(empty);
  const abort = useRef(new AbortController());
  /** @param {string | null} cursor */
  async function load(cursor) {
    const { signal } = abort.current;
    setState((state) => ({ ...state, loading: true, error: null }));
    try {
      const page = await get(`/datasets/${id}/images`, { split, cursor, limit: PAGE }, signal);
      if (!signal.aborted) setState((state) => ({ pictures: [...state.pictures, ...page.data], cursor: page.next_cursor, loading: false, error: null }));
    } catch (error) {
      if (!signal.aborted) setState((state) => ({ ...state, loading: false, error }));
    }
  }
  useEffect(() => {
    abort.current = new AbortController();
    setState(empty);
    load(null);
    return () => abort.current.abort();
  }, [id, split]);
  return { pictures: state.pictures, more: state.cursor !== null, loading: state.loading, error: state.error, load: () => load(state.cursor) };
}

/** @param {{source: string, split: string, picture: Picture, classes: readonly string[], category: string, labels: boolean}} props */
function Picture({ source, split, picture, classes, category, labels }) {
  const { url, error } = useObjectUrl(source, { split });
  const boxes = picture.objects.filter((object) => !category || object.category === category).map((object) => ({
    x: object.bbox[0], y: object.bbox[1], width: object.bbox[2], height: object.bbox[3],
    category: object.category, note: object.crowd ? "(crowd)" : "",
  }));
  return html`
    <${Boxes} source=${url} width=${picture.width} height=${picture.height} boxes=${boxes} classes=${classes} isLabelled=${labels} alt=${picture.file_name} />
    ${error && html`<span class="bad">${error.message}</span>`}`;
}

/** @param {{source: string, split: string, picture: Picture, classes: readonly string[], category: string}} props */
function Large(props) {
  return html`<${Picture} ...${props} labels=${true} />
    <p class="hint">${props.picture.width} × ${props.picture.height} pixels, ${describe(props.picture)}</p>`;
}

/** "2 circle, 1 star". @param {Picture} picture */
function describe(picture) {
  const counts = new Map();
  for (const { category } of picture.objects) counts.set(category, (counts.get(category) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${count} ${name}`).join(", ") || "no boxes";
}
