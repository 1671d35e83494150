// @ts-check
/** Log lines and events of a job in one list, which grows with the stream. */
import { get, getAll, save } from "../../api.js";
import { Loading } from "../../components/basics.js";
import { attempt } from "../../components/toast.js";
import { time, words } from "../../format.js";
import { html, useEffect, useMemo, useRef, useState } from "../../html.js";
import { useResource } from "../../resource.js";
import { route, setQuery } from "../../router.js";
import { useStreamed } from "./streamed.js";
import { timeline } from "./timeline.js";

/** @typedef {import("../../types/api").components["schemas"]["JobDetails"]} Job */
/** @typedef {import("./live.js").LiveJob} LiveJob */
/** @typedef {{seq: number, at: string, attempt: number, level: string, text: string}} Line */

const LEVELS = ["debug", "info", "warning", "error"];
/** Newest log lines that are loaded at first, lines that are kept, and lines that are drawn at most. */
const TAIL = 200, KEPT = 20_000, DRAWN = 2000;

/** @param {{job: Job, live: LiveJob}} props */
export function Tab({ job, live }) {
  const { query } = route.value;
  const level = LEVELS.includes(query.level ?? "") ? /** @type {string} */ (query.level) : "debug";
  const [isWhole, setWhole] = useState(false);
  const resource = useLines(job, live, isWhole);
  const [follows, setFollows] = useState(!job.is_terminal);

  return html`
    <div class="row controls" role="group" aria-label="Filter">
      <label>Level <select value=${level} onChange=${(/** @type {any} */ event) => setQuery({ level: event.target.value })}>
        ${LEVELS.map((name) => html`<option value=${name}>${name === "error" ? "error" : `${name} and above`}</option>`)}</select></label>
      <label>Show <select value=${query.show ?? ""} onChange=${(/** @type {any} */ event) => setQuery({ show: event.target.value })}>
        <option value="">log and events</option><option value="log">log</option><option value="events">events</option></select></label>
      <label>Search <input type="search" value=${query.search ?? ""} onInput=${(/** @type {any} */ event) => setQuery({ search: event.target.value })} /></label>
      <label><input type="checkbox" checked=${follows} onChange=${() => setFollows(!follows)} /> Follow the end</label>
      <span class="grow"></span>
      <button onClick=${() => attempt(() => saveLog(job))}>Download</button>
    </div>
    <${Loading} resource=${resource}>${(/** @type {{lines: Line[], isCut: boolean}} */ { lines, isCut }) => html`
      ${isCut && !isWhole && html`<p>Earlier log lines are not shown. <button class="quiet" onClick=${() => setWhole(true)}>Load all</button></p>`}
      <${Lines} lines=${lines} level=${level} show=${query.show ?? ""} search=${query.search ?? ""} follows=${follows} onLeave=${() => setFollows(false)} />`}<//>`;
}

/** @param {Job} job @param {LiveJob} live @param {boolean} isWhole */
function useLines(job, live, isWhole) {
  const resource = useResource(async () => {
    const [logs, events] = await Promise.all([
      isWhole ? getAll(`/jobs/${job.id}/logs`, { limit: 200 }, Infinity) : get(`/jobs/${job.id}/logs`, { tail: TAIL }).then((page) => page.data),
      getAll(`/jobs/${job.id}/events`, { limit: 200 }, Infinity),
    ]);
    const lines = [...logs.map(fromLog), ...events.flatMap((event) => fromEvent(event, job))].sort((a, b) => a.seq - b.seq);
    return { lines: lines.slice(-KEPT), isCut: logs.length === TAIL };
  }, [job.id, isWhole]);
  const lines = useStreamed(resource.data?.lines, resource.reload, live, ({ type, data, ...event }) =>
    (type === "metric" ? [] : type === "log" ? [fromLog({ ...event, ...data })] : fromEvent({ ...event, type, data }, job)));
  return { ...resource, data: resource.data && { ...resource.data, lines: /** @type {Line[]} */ (lines).slice(-KEPT) } };
}

/** @param {any} line @returns {Line} */
const fromLog = ({ seq, at, attempt, level, message }) => ({ seq, at, attempt, level, text: message });

/** An event in the words of the history; those that the history leaves out by their type. @param {any} event @param {Job} job @returns {Line[]} */
function fromEvent(event, job) {
  const text = timeline([event], job)[0]?.text ?? (event.type === "rewound" ? "Starts at step 0" : words(event.type));
  return [{ seq: event.seq, at: event.at, attempt: event.attempt, level: "event", text }];
}

/** Lines of the log and the events. @param {{lines: Line[], level: string, show: string, search: string, follows: boolean, onLeave: () => void}} props */
function Lines({ lines, level, show, search, follows, onLeave }) {
  const element = useRef(/** @type {any} */ (null));
  const shown = useMemo(() => {
    const wanted = search.toLowerCase();
    return lines.filter((line) => (line.level === "event" ? show !== "log" : show !== "events" && LEVELS.indexOf(line.level) >= LEVELS.indexOf(level)) && line.text.toLowerCase().includes(wanted));
  }, [lines, level, show, search]);
  const attempts = lines.length > 0 && lines.at(-1)?.attempt !== lines.find((line) => line.attempt > 0)?.attempt;
  useEffect(() => { if (follows) element.current?.scrollTo(0, element.current.scrollHeight); }, [shown, follows]);
  const leave = (/** @type {any} */ { currentTarget: list }) => {
    if (follows && list.scrollHeight - list.scrollTop - list.clientHeight > 60) onLeave();
  };
  if (!shown.length) return html`<p class="empty">${lines.length ? "No line matches: choose another level or search." : "No lines yet: they appear once a worker has claimed the job."}</p>`;
  return html`
    <p class="hint" role="status">${shown.length} of ${lines.length} lines${shown.length > DRAWN ? `, the newest ${DRAWN} are drawn: search for others` : ""}</p>
    <div class="log" ref=${element} tabindex="0" role="log" aria-label="Log and events" onScroll=${leave}>
      ${shown.slice(-DRAWN).map((line) => html`<div key=${line.seq} class=${`line ${line.level}`}>
        <time datetime=${line.at} title=${time(line.at)}>${new Date(line.at).toLocaleTimeString("en-GB")}</time>
        <span class="level">${attempts ? `${line.attempt} ` : ""}${line.level}</span>
        <span class="text">${line.text}</span></div>`)}
    </div>`;
}

/** Save all log lines and events as a text file. @param {Job} job */
async function saveLog(job) {
  const [logs, events] = await Promise.all([getAll(`/jobs/${job.id}/logs`, { limit: 200 }, Infinity), getAll(`/jobs/${job.id}/events`, { limit: 200 }, Infinity)]);
  const lines = [
    ...logs.map((line) => ({ ...line, text: `${line.level} ${line.message}` })),
    ...events.map((event) => ({ ...event, text: `event ${event.type} ${JSON.stringify(event.data)}` })),
  ].sort((a, b) => a.seq - b.seq);
  save(`${job.name ?? job.id}.log`, new Blob([lines.map((line) => `${line.at} attempt ${line.attempt} ${line.text}\n`).join("")], { type: "text/plain" }));
}
