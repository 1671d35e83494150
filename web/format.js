// @ts-check
/** Numbers, times and sizes as text. A value that is missing is an en dash. */

export const NONE = "–";
const THIN = "\u202f";

/** @param {any} value @returns {value is null | undefined} */
const missing = (value) => value === null || value === undefined || Number.isNaN(value);

/** mAP and its kin, 0 to 1, in points: 41.3. @param {number | null | undefined} value @param {number} [digits] */
export const points = (value, digits = 1) => (missing(value) ? NONE : (100 * value).toFixed(digits));

/** A difference in points with its sign: +6.2. @param {number | null | undefined} value @param {number} [digits] */
export const signed = (value, digits = 1) => {
  if (missing(value)) return NONE;
  const text = Math.abs(100 * value).toFixed(digits);
  return `${Number(text) === 0 ? "±" : value > 0 ? "+" : "−"}${text}`;
};

/** An interval in points: +4.5 to +7.6. @param {{low: number, high: number} | null | undefined} interval @param {number} [digits] */
export const range = (interval, digits = 1) => (interval ? `${signed(interval.low, digits)} to ${signed(interval.high, digits)}` : NONE);

/** @param {number | null | undefined} value */
export const percent = (value) => (missing(value) ? NONE : `${Math.round(100 * value)}${THIN}%`);

/** A number with four digits, or all those of a whole one: 0.1235, 1 230. @param {number | null | undefined} value */
export const number = (value) => {
  if (missing(value)) return NONE;
  const size = Math.abs(value), isWhole = Number.isInteger(value);
  if (!isWhole && (size >= 1e5 || size < 1e-3)) return value.toExponential(2);
  const rounding = isWhole || size >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 };
  return value.toLocaleString("en", rounding).replaceAll(",", THIN);
};

/** A measured value with three digits, or all of those before the point: 4.50, 13.0, 1 235. @param {number | null | undefined} value */
export const measured = (value) => (missing(value) ? NONE : Math.abs(value) < 999.5 ? value.toPrecision(3) : number(Math.round(value)));

/** 3.06 M. @param {number | null | undefined} value */
export const count = (value) => scaled(value, 1000, ["", "k", "M", "G", "T"]);

/** 13.0 MB. @param {number | null | undefined} value */
export const bytes = (value) => scaled(value, 1000, ["B", "kB", "MB", "GB", "TB"]);

/** @param {number | null | undefined} value @param {number} base @param {string[]} units */
function scaled(value, base, units) {
  if (missing(value)) return NONE;
  let index = 0;
  while (Math.abs(Number(value.toPrecision(3))) >= base && index < units.length - 1) [value, index] = [value / base, index + 1];
  const text = index === 0 ? String(Math.round(value)) : measured(value);
  return units[index] ? `${text} ${units[index]}` : text;
}

/** @param {number | null | undefined} value */
export const milliseconds = (value) => (missing(value) ? NONE : `${measured(value)} ms`);

/** 4 min 12 s. @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (missing(seconds)) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const first = parts.findIndex(([value]) => value);
  return first < 0 ? "0 s" : parts.slice(first, first + 2).filter(([value], index) => value || !index).map(([value, unit]) => `${value} ${unit}`).join(" ");
}

/** Seconds between two times of the API, the second one now if it is null. @param {string | null} from @param {string | null} [to] */
export const between = (from, to) => (from ? ((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000 : null);

/** "3 min ago". @param {string | null | undefined} at */
export function ago(at) {
  if (!at) return NONE;
  const seconds = (Date.now() - Date.parse(at)) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds < 3600 ? seconds : Math.round(seconds / 60) * 60)} ago`;
}

/** Local date and time. @param {string | null | undefined} at */
export const time = (at) => (at ? new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }) : NONE);

/** The begin of a local day, such as 2026-11-30, as a time of the API; null for any other text. @param {string | undefined} day */
export function dayStart(day) {
  const start = new Date(`${day}T00:00`);
  return Number.isNaN(start.getTime()) ? null : start.toISOString();
}

/** Local time of day with seconds. @param {string} at */
export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

/** "waiting_for_data" as "waiting for data". @param {string | null | undefined} word */
export const words = (word) => (word ? word.replaceAll("_", " ") : NONE);

/** "1 image", "2 images". @param {number} value @param {string} noun @param {string} [plural] */
export const plural = (value, noun, plural = `${noun}s`) => `${number(value)} ${value === 1 ? noun : plural}`;
