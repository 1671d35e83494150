// @ts-check
/** What the event stream of a job brings to the view and its tabs. */
import { signal } from "../../html.js";
import { follow } from "../../stream.js";

/** @typedef {(type: string, data: any, seq: number | null) => void} Listener */

export class LiveJob {
  /** @type {{value: "connecting" | "live" | "reconnecting" | "ended"}} */
  state = signal(/** @type {any} */ ("connecting"));
  /** Rises when events may have been missed: data that was loaded before must be loaded again. */
  gaps = signal(0);
  /** @type {Map<string, {value: number, peek(): number}>} */
  #counts = new Map();
  /** @type {Set<Listener>} */
  #listeners = new Set();

  /** Number of events of a type so far; a component that reads it is drawn again with each one. @param {string} type */
  count(type) {
    return this.#count(type).value;
  }

  /** Call `listener` with each event; return a function that ends it. @param {Listener} listener @returns {() => void} */
  listen(listener) {
    this.#listeners.add(listener);
    return () => { this.#listeners.delete(listener); };
  }

  /** Follow the events of a job from now on. @param {string} id @param {AbortSignal} abort */
  follow(id, abort) {
    let isNumbered = false;
    return follow(`/jobs/${id}/stream?from=now`, {
      abort,
      onState: (state) => {
        if (state === "live" && !isNumbered) this.gaps.value = this.gaps.peek() + 1;
        this.state.value = state;
      },
      onEvent: (type, data, seq) => {
        isNumbered ||= seq !== null;
        const count = this.#count(type);
        count.value = count.peek() + 1;
        for (const listener of this.#listeners) listener(type, data, seq);
      },
    });
  }

  /** @param {string} type */
  #count(type) {
    const count = this.#counts.get(type) ?? signal(0);
    this.#counts.set(type, count);
    return count;
  }
}
