// @ts-check
/**
 * Server-sent events with an API key: EventSource cannot send headers, so the events are read from a fetch response.
 * After a lost connection the stream continues after the last event that was received.
 */
import { ApiError, send } from "./api.js";

const RETRY_SECONDS = [0.5, 1, 2, 5];

/**
 * Call `onEvent` for each event until `abort` is aborted or the stream ends with the event `end`. `onState` receives
 * "live", "reconnecting" or "ended".
 * @param {string} path
 * @param {{onEvent: (type: string, data: any, id: number | null) => void,
 *   onState?: (state: "live" | "reconnecting" | "ended") => void, abort: AbortSignal}} options
 */
export async function follow(path, { onEvent, onState = () => {}, abort }) {
  let last = /** @type {string | null} */ (null);
  for (let failures = 0; !abort.aborted; failures++) {
    try {
      /** @type {Record<string, string>} */
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const response = await send("GET", path, { headers, signal: abort });
      onState("live");
      for await (const { event, data, id } of parse(/** @type {ReadableStream<Uint8Array>} */ (response.body))) {
        failures = 0;
        if (id !== undefined) last = id;
        onEvent(event, JSON.parse(data), id === undefined ? null : Number(id));
        if (event === "end") return onState("ended");
      }
    } catch (error) {
      if (abort.aborted) return;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) return onState("ended");
    }
    if (abort.aborted) return;
    onState("reconnecting");
    await new Promise((resolve) => setTimeout(resolve, 1000 * RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)]));
  }
}

/**
 * Yield the events of a stream; the last one is dropped if it is incomplete.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{event: string, data: string, id?: string}>}
 */
export async function* parse(body) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let text = "";
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = /** @type {string} */ (blocks.pop());
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map((line) => [line.split(":", 1)[0], line.replace(/^[^:]*: ?/, "")]));
        if (fields.event) yield /** @type {any} */ (fields);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
