// @ts-check
/** Choose, send and show files. */
import { send } from "../api.js";
import { bytes } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { Copy, ProgressBar } from "./basics.js";

/**
 * A field for one file, which is chosen or dropped.
 * @param {{label: string, hint?: any, accept: string, file: File | null, onFile: (file: File) => void, disabled?: boolean}} props
 */
export function FileDrop({ label, hint, accept, file, onFile, disabled }) {
  const [over, setOver] = useState(false);
  /** @param {any} event @param {FileList | null} files */
  const take = (event, files) => {
    event.preventDefault();
    setOver(false);
    if (files?.length && !disabled) onFile(files[0]);
  };
  return html`
    <label class=${`drop${over ? " over" : ""}`}
      onDragOver=${(/** @type {Event} */ event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)}
      onDrop=${(/** @type {DragEvent} */ event) => take(event, event.dataTransfer?.files ?? null)}>
      <input class="visually-hidden" type="file" accept=${accept} disabled=${disabled}
        onChange=${(/** @type {any} */ event) => { take(event, event.target.files); event.target.value = ""; }} />
      <strong>${file ? `${file.name} (${bytes(file.size)})` : label}</strong>
      ${hint && html`<br /><span class="hint">${hint}</span>`}
    </label>`;
}

/** How much of a file was sent. @param {{progress: import("../upload.js").Progress, after: string, onCancel: () => void}} props `after`: what the service does once it has the file. */
export function UploadProgress({ progress, after, onCancel }) {
  const { sent, total } = progress;
  const complete = total > 0 && sent >= total;
  return html`<div class="row" role="status">
    <${ProgressBar} value=${complete ? null : sent / (total || 1)} label="Upload"
      text=${complete ? `${bytes(total)} sent. ${after}` : `${bytes(sent)} of ${bytes(total)}`} />
    <button type="button" onClick=${onCancel}>Cancel</button>
  </div>`;
}

/** The start of a SHA-256, with all of it on hover and to copy. @param {{value: string}} props */
export const Hash = ({ value }) => html`<span class="together"><code title=${value}>${value.slice(0, 12)}</code> <${Copy} text=${value} /></span>`;

/**
 * Load a file of the API, which needs the key, and return an address for it: null before it is there. The address is
 * revoked once the component is gone.
 * @param {string} path @param {import("../api.js").Query} [query]
 * @returns {{url: string | null, error: any}}
 */
export function useObjectUrl(path, query = {}) {
  const [state, setState] = useState(/** @type {{url: string | null, error: any}} */ ({ url: null, error: null }));
  useEffect(() => {
    const abort = new AbortController();
    let url = /** @type {string | null} */ (null);
    setState({ url: null, error: null });
    send("GET", path, { query, signal: abort.signal }).then((response) => response.blob()).then((blob) => {
      if (abort.signal.aborted) return;
      url = URL.createObjectURL(blob);
      setState({ url, error: null });
    }).catch((error) => { if (!abort.signal.aborted) setState({ url: null, error }); });
    return () => {
      abort.abort();
      if (url) URL.revokeObjectURL(url);
    };
  }, [path, JSON.stringify(query)]);
  return state;
}
