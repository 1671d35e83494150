// @ts-check
/** Small parts that all views share. */
import { Fragment, html, useEffect, useRef, useState } from "../html.js";
import { ago, duration, NONE, percent, time, words } from "../format.js";
import { href } from "../router.js";
import { toast } from "./toast.js";

/** Show `children(data)` once the data of a resource is there; before it a line, and its error. @param {{resource: any, children: (data: any) => any}} props */
export function Loading({ resource, children }) {
  const { data, error, reload } = resource;
  return html`
    ${error && html`<${Problem} error=${error} onRetry=${reload} />`}
    ${data === undefined ? !error && html`<p class="loading" role="status">Loading</p>` : children(data)}`;
}

/** An error of the API with its next step. @param {{error: any, onRetry?: () => void}} props */
export function Problem({ error, onRetry }) {
  return html`
    <div class="problem" role="alert">
      <strong>${error.message}</strong> ${error.hint}
      ${error.errors?.length > 0 && html`<ul>${error.errors.map((/** @type {any} */ item) => html`
        <li>${item.field && html`<code>${item.field}</code>: `}${item.message} ${item.hint ?? ""}</li>`)}</ul>`}
      ${error.code && html` <small><code>${error.code}</code></small>`}
      ${onRetry && html` <button class="quiet" onClick=${onRetry}>Try again</button>`}
    </div>`;
}

const SIGNS = { queued: "◷", running: "▶", paused: "❚❚", succeeded: "✓", failed: "✕", cancelled: "⊘" };

/** Status of a job, as a sign and a word. @param {{status: string}} props */
export function Status({ status }) {
  return html`<span class=${`status ${status}`}><span aria-hidden="true">${SIGNS[/** @type {keyof typeof SIGNS} */ (status)] ?? "•"}</span> ${words(status)}</span>`;
}

/** @param {{value: number | null | undefined, label: string, text?: string}} props */
export function ProgressBar({ value, label, text }) {
  return html`<span class="progress"><progress max="1" value=${value ?? undefined} aria-label=${label}></progress> <span>${text ?? percent(value)}</span></span>`;
}

/** The phase in which a job makes its steps; others have a progress of their own, and no remaining time is known. */
const TRAINING = "training";

/** Remaining time of the training as text; empty if it is unknown. @param {any} job */
export const timeLeft = (job) => (job.phase === TRAINING && job.progress?.eta_seconds > 0 ? `${duration(job.progress.eta_seconds)} left` : "");

/** The phase of a running job that is not its training; null during training. @param {any} job @returns {string | null} */
export const otherPhase = (job) => (job.phase && job.phase !== TRAINING ? job.phase : null);

/** Progress of a job in its current phase, with the remaining time of the training. @param {{job: any}} props */
export function JobProgress({ job }) {
  const { progress } = job;
  const name = job.name ?? job.id ?? job.job_id;
  const phase = otherPhase(job);
  if (phase) return html`<${PhaseProgress} job=${job} />`;
  if (!progress?.steps) return html`<span class="muted">${NONE}</span>`;
  return html`<${ProgressBar} value=${progress.fraction} label=${`Training of ${name}`} text=${[percent(progress.fraction), timeLeft(job)].filter(Boolean).join(", ")} />`;
}

/** The current phase with its own progress. @param {{job: any}} props */
export function PhaseProgress({ job }) {
  const fraction = job.progress?.phase_fraction ?? null;
  const phase = words(job.phase);
  return html`<${ProgressBar} value=${fraction} label=${`${phase} of ${job.name ?? job.id ?? job.job_id}`} text=${fraction === null ? phase : `${phase} ${percent(fraction)}`} />`;
}

/** A time as "3 min ago", the exact one on hover. @param {{at: string | null | undefined}} props */
export function Ago({ at }) {
  return at ? html`<time datetime=${at} title=${time(at)}>${ago(at)}</time>` : NONE;
}

/** A link to a job by name or id. @param {{id: string, name?: string | null}} props */
export const JobLink = ({ id, name }) => html`<a href=${href(["jobs", id])}>${name || id}</a>`;

/** Put a text into the clipboard, also where the page is not served over HTTPS or from this machine. @param {string} text */
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("refused");
}

/** @param {{text: string, label?: string}} props */
export function Copy({ text, label = "Copy" }) {
  const copy = () => copyText(text).then(() => toast("Copied."), () => toast("The browser refused to copy.", "failed"));
  return html`<button class="quiet" onClick=${copy}>${label}</button>`;
}

/**
 * A button whose action runs once at a time. With `confirm`, a question must be answered first, below which `details` are shown.
 * @param {{children: any, onClick: () => Promise<any> | void, confirm?: string, details?: any, class?: string, disabled?: boolean, title?: string}} props
 */
export function ActionButton({ children, onClick, confirm, details, disabled, title, ...props }) {
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  const run = async () => {
    setBusy(true);
    try { await onClick(); } finally { setBusy(false); }
  };
  return html`
    <button class=${props.class ?? ""} disabled=${disabled || busy} title=${title} onClick=${() => (confirm ? setAsking(true) : run())}>${children}</button>
    ${asking && html`<${Dialog} title=${confirm} onClose=${() => setAsking(false)}>
      ${details}
      <div class="row end">
        <button onClick=${() => setAsking(false)}>Back</button>
        <button class="danger" onClick=${() => { setAsking(false); run(); }}>${children}</button>
      </div>
    <//>`}`;
}

/** A modal dialog. @param {{title: any, children?: any, onClose: () => void, wide?: boolean}} props */
export function Dialog({ title, children, onClose, wide }) {
  const element = useRef(/** @type {any} */ (null));
  useEffect(() => { element.current.showModal(); }, []);
  return html`<dialog ref=${element} class=${wide ? "wide" : ""} onClose=${onClose} aria-label=${typeof title === "string" ? title : undefined}><h2>${title}</h2>${children}</dialog>`;
}

/** Links that choose a part of a view. @param {{items: {name: string, title: any, address: string}[], current: string, label: string}} props */
export function Tabs({ items, current, label }) {
  return html`<nav class="tabs" aria-label=${label}>${items.map((item) => html`
    <a href=${item.address} aria-current=${item.name === current ? "page" : undefined}>${item.title}</a>`)}</nav>`;
}

/** Terms and their values. @param {{items: [any, any][]}} props */
export function Facts({ items }) {
  return html`<dl class="facts">${items.map(([term, value]) => html`<${Fragment}><dt>${term}</dt><dd>${value ?? NONE}</dd><//>`)}</dl>`;
}
