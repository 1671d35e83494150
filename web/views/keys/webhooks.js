// @ts-check
/** Webhooks of an owner: list, create, delete, and the log of the deliveries of one. */
import { get, getAll, idempotencyKey, post, send } from "../../api.js";
import { ActionButton, Ago, Copy, Dialog, JobLink, Loading, Problem } from "../../components/basics.js";
import { Table } from "../../components/table.js";
import { attempt } from "../../components/toast.js";
import { NONE, number, plural } from "../../format.js";
import { html, useMemo, useState } from "../../html.js";
import { useResource } from "../../resource.js";
import { href, route, setQuery } from "../../router.js";

/** @typedef {import("../../types/api").components["schemas"]["Webhook"]} Webhook */
/** @typedef {import("../../types/api").components["schemas"]["NewWebhook"]} NewWebhook */
/** @typedef {import("../../types/api").components["schemas"]["Delivery"]} Delivery */

const REFRESH_SECONDS = 10;
const DELIVERIES = 100;
const EVENTS = ["job.started", "job.paused", "job.succeeded", "job.failed", "job.cancelled"];
const ENDINGS = EVENTS.slice(2);
/** The status of a job whose colour the status of a webhook or of a delivery has. */
const AS_JOB = { active: "succeeded", delivered: "succeeded", failing: "paused", pending: "running", dead: "failed" };

/** @param {{status: string}} props */
const State = ({ status }) => html`<span class=${`status ${AS_JOB[/** @type {keyof typeof AS_JOB} */ (status)] ?? ""}`}>${status}</span>`;

export function Webhooks() {
  const webhooks = useResource(() => getAll("/webhooks", { limit: 200 }), [], REFRESH_SECONDS);
  const [creating, setCreating] = useState(false);
  const [created, setCreated] = useState(/** @type {NewWebhook | null} */ (null));
  const done = (/** @type {NewWebhook} */ webhook) => { setCreating(false); setCreated(webhook); webhooks.reload(); };
  const { webhook } = route.value.query;
  return html`<${Loading} resource=${webhooks}>${(/** @type {Webhook[]} */ rows) => html`
    ${created && html`<${Secret} created=${created} onDone=${() => setCreated(null)} />`}
    <div class="row">
      <button class="primary" onClick=${() => setCreating(true)}>Create a webhook</button>
      <span class="muted">A webhook receives the events of its owner's jobs as signed requests, or as mail.</span>
    </div>
    <section class="card">
      <${Table} label="Webhooks" columns=${columns(webhooks.reload)} rows=${rows} rowKey=${(/** @type {Webhook} */ row) => row.id} empty="No webhook yet."
        order=${route.value.query.order ?? ""} onOrder=${(/** @type {string} */ order) => setQuery({ order })} />
    </section>
    ${webhook && html`<${Deliveries} key=${webhook} id=${webhook} />`}
    ${creating && html`<${Dialog} title="Create a webhook" onClose=${() => setCreating(false)}><${CreateForm} onCreated=${done} onCancel=${() => setCreating(false)} /><//>`}`}<//>`;
}

/** @param {() => void} reload @returns {import("../../components/table.js").Column<Webhook>[]} */
function columns(reload) {
  const remove = async (/** @type {Webhook} */ webhook) => {
    if (await attempt(() => send("DELETE", `/webhooks/${webhook.id}`), "The webhook is deleted.")) reload();
  };
  return [
    { name: "url", title: "URL", sort: (row) => row.url, cell: (row) => html`<a href=${href(["keys", "webhooks"], { ...route.value.query, webhook: row.id })} title="Its deliveries">${row.url}</a>` },
    { name: "events", title: "Events", cell: (row) => row.events.join(", ") },
    { name: "status", title: "Status", sort: (row) => row.status, cell: (row) => html`<${State} status=${row.status} />` },
    { name: "since", title: "Since", sort: (row) => row.dead_since ?? row.failing_since, cell: (row) => html`<${Ago} at=${row.dead_since ?? row.failing_since} />` },
    { name: "owner", title: "Owner", sort: (row) => row.owner, cell: (row) => row.owner },
    { name: "created", title: "Created", sort: (row) => row.created_at, cell: (row) => html`<${Ago} at=${row.created_at} />` },
    { name: "delete", title: html`<span class="visually-hidden">Delete</span>`, cell: (row) => html`<${ActionButton} class="danger" confirm=${`Delete the webhook ${row.url} and its deliveries?`} onClick=${() => remove(row)}>Delete<//>` },
  ];
}

/** @param {{onCreated: (webhook: NewWebhook) => void, onCancel: () => void}} props */
function CreateForm({ onCreated, onCancel }) {
  const [url, setUrl] = useState("");
  const [events, setEvents] = useState(ENDINGS);
  const [error, setError] = useState(/** @type {any} */ (null));
  const toggle = (/** @type {string} */ event) => setEvents(events.includes(event) ? events.filter((item) => item !== event) : [...events, event]);
  const key = useMemo(() => idempotencyKey(), [url, events]);
  const submit = async () => {
    try {
      onCreated(await post("/webhooks", { url: url.trim(), events }, { "Idempotency-Key": key }));
    } catch (error) {
      setError(error);
    }
  };
  return html`
    <div class="field"><label for="webhook-url">URL, or mailto: and an address</label><input id="webhook-url" value=${url} onInput=${(/** @type {any} */ event) => setUrl(event.target.value)} placeholder="https://hooks.example.org/frs" /></div>
    <fieldset class="field"><legend>Events</legend>${EVENTS.map((event) => html`<div><label><input type="checkbox" checked=${events.includes(event)} onChange=${() => toggle(event)} /> <code>${event}</code></label></div>`)}</fieldset>
    ${error && html`<${Problem} error=${error} />`}
    <div class="row end"><button onClick=${onCancel}>Cancel</button>
      <${ActionButton} class="primary" disabled=${!url.trim() || !events.length} onClick=${submit}>Create<//></div>`;
}

/** @param {{created: NewWebhook, onDone: () => void}} props */
function Secret({ created, onDone }) {
  return html`<section class="card" role="status">
    <h2>The secret of ${created.url}</h2>
    <p>The receiver verifies signatures with it (Standard Webhooks). Copy it now: it is not shown again.</p>
    <div class="row"><code>${created.secret}</code> <${Copy} text=${created.secret} label="Copy the secret" /> <button onClick=${onDone}>I have copied it</button></div>
  </section>`;
}

/** The newest deliveries of a webhook. @param {{id: string}} props */
function Deliveries({ id }) {
  const status = route.value.query.status ?? "";
  const page = useResource((signal) => get(`/webhooks/${id}/deliveries`, { limit: DELIVERIES, status }, signal), [id, status], REFRESH_SECONDS);
  const again = async (/** @type {Delivery} */ delivery) => {
    if (await attempt(() => post(`/webhooks/${id}/deliveries/${delivery.id}/redeliver`), "The delivery is sent again.")) page.reload();
  };
  /** @type {import("../../components/table.js").Column<Delivery>[]} */
  const columns = [
    { name: "created", title: "Time", cell: (row) => html`<${Ago} at=${row.created_at} />` },
    { name: "event", title: "Event", cell: (row) => row.event },
    { name: "job", title: "Job", cell: (row) => html`<${JobLink} id=${row.job_id} />` },
    { name: "status", title: "Status", cell: (row) => html`<${State} status=${row.status} />` },
    { name: "attempts", title: "Attempts", numeric: true, cell: (row) => number(row.attempt) },
    { name: "last", title: "Last attempt", cell: (row) => lastAttempt(row) },
    { name: "next", title: "Next attempt", cell: (row) => (row.next_attempt_at ? new Date(row.next_attempt_at).toLocaleTimeString("en-GB") : NONE) },
    { name: "again", title: html`<span class="visually-hidden">Send again</span>`, cell: (row) => html`<${ActionButton} onClick=${() => again(row)}>Send again<//>` },
  ];
  return html`<section class="card"><h2>Deliveries</h2>
    <div class="row"><label>Status <select value=${status} onChange=${(/** @type {any} */ event) => setQuery({ status: event.target.value || null })}>
      ${["", "pending", "delivered", "dead"].map((name) => html`<option value=${name}>${name || "all"}</option>`)}</select></label>
      <a href=${href(["keys", "webhooks"])}>Close</a></div>
    <${Loading} resource=${page}>${(/** @type {{data: Delivery[]}} */ { data }) => html`
      <${Table} label="Deliveries" columns=${columns} rows=${data} rowKey=${(/** @type {Delivery} */ row) => row.id} empty="No event was sent yet." />
      ${data.length === DELIVERIES && html`<p class="hint">The newest ${plural(DELIVERIES, "delivery", "deliveries")}.</p>`}`}<//>
  </section>`;
}

/** @param {Delivery} delivery */
function lastAttempt({ attempts }) {
  const last = attempts.at(-1);
  return last ? html`<span>${last.error ?? `status ${last.status_code ?? NONE}`} <span class="muted">${last.duration_seconds.toFixed(1)} s</span></span>` : NONE;
}
