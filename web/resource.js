// @ts-check
/** Data from the API as state of a component. */
import { useCallback, useEffect, useRef, useState } from "./html.js";

/**
 * @template T
 * @typedef {{data: T | undefined, error: any, loading: boolean, reload: () => void}} Resource
 */

/**
 * Load data when the component is shown, when one of `dependencies` changes, and every `seconds` while the tab is
 * visible. An error keeps the data that was there, and the next try follows after 2 s if the service was unreachable.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {unknown[]} dependencies
 * @param {number} [seconds]
 * @returns {Resource<T>}
 */
export function useResource(load, dependencies, seconds = 0) {
  const [state, setState] = useState(/** @type {any} */ ({ data: undefined, error: null, loading: true }));
  const [round, setRound] = useState(0);
  const previous = useRef(dependencies);
  const interval = useRef(seconds);
  interval.current = seconds;
  const reload = useCallback(() => setRound((value) => value + 1), []);

  useEffect(() => {
    const abort = new AbortController();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const changed = previous.current.some((value, index) => value !== dependencies[index]);
    previous.current = dependencies;
    if (changed) setState({ data: undefined, error: null, loading: true });

    const again = (/** @type {number} */ delay) => {
      if (delay) timer = setTimeout(() => (document.hidden ? again(delay) : run()), 1000 * delay);
    };
    async function run() {
      try {
        const data = await load(abort.signal);
        if (abort.signal.aborted) return;
        setState({ data, error: null, loading: false });
        again(interval.current);
      } catch (error) {
        if (abort.signal.aborted) return;
        setState((/** @type {any} */ state) => ({ ...state, error, loading: false }));
        again(/** @type {any} */ (error).code === "unreachable" ? 2 : interval.current);
      }
    }
    run();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [...dependencies, round]);
  return { ...state, reload };
}
