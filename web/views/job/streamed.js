// @ts-check
/** A list of numbered rows that was loaded, together with the rows that the stream has brought since. */
import { useEffect, useMemo, useRef, useState } from "../../html.js";

/** Number of streamed rows after which the list is loaded again. */
const MAX_STREAMED = 4000;
const REDRAW_MS = 300;

/** @typedef {import("./live.js").LiveJob} LiveJob */

/**
 * Return the rows of a resource and of the stream, each once, by ascending `seq`; undefined before the first load.
 * An event may come before, during or after a load.
 * @template {{seq: number}} T
 * @param {T[] | undefined} rows @param {() => void} reload @param {LiveJob} live
 * @param {(event: {seq: number, type: string, at: string, attempt: number, data: any}) => T[]} convert rows of an event
 * @returns {T[] | undefined}
 */
export function useStreamed(rows, reload, live, convert) {
  const streamed = useRef(/** @type {T[]} */ ([]));
  const [version, setVersion] = useState(0);
  const gaps = live.gaps.value;

  useEffect(() => { if (gaps) reload(); }, [gaps]);
  useEffect(() => {
    let timer = 0;
    const stop = live.listen((type, { at, attempt, ...data }, seq) => {
      if (seq === null) return;
      const added = convert({ seq, type, at, attempt, data });
      if (!added.length) return;
      streamed.current.push(...added);
      if (streamed.current.length > MAX_STREAMED) {
        streamed.current = streamed.current.slice(-MAX_STREAMED / 4);
        reload();
      }
      timer ||= setTimeout(() => { timer = 0; setVersion((value) => value + 1); }, REDRAW_MS);
    });
    return () => { stop(); clearTimeout(timer); };
  }, [live]);

  return useMemo(() => {
    if (!rows) return rows;
    const present = new Set(rows.map((row) => row.seq));
    const added = streamed.current.filter((row) => !present.has(row.seq));
    return added.length ? [...rows, ...added].sort((a, b) => a.seq - b.seq) : rows;
  }, [rows, version]);
}
