// @ts-check
/** The libraries of the page, with types: `html` makes elements, hooks and signals keep state. */
import htm from "./vendor/htm.js";
import * as preact from "./vendor/preact.js";
import * as hooks from "./vendor/preact-hooks.js";
import * as signals from "./vendor/signals.js";

/** @type {any} */
const libraries = { ...preact, ...hooks, ...signals };

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = /** @type {any} */ (htm).bind(libraries.h);
/** @type {(element: any, parent: Element) => void} */
export const render = libraries.render;
/** @type {any} */
export const Fragment = libraries.Fragment;
/** @type {<T>(value: T) => {value: T, peek(): T}} */
export const signal = libraries.signal;
/** @type {(effect: () => void | (() => void), dependencies?: readonly any[]) => void} */
export const useEffect = libraries.useEffect;
/** @type {<T>(make: () => T, dependencies: readonly any[]) => T} */
export const useMemo = libraries.useMemo;
/** @type {<T>(value: T) => {current: T}} */
export const useRef = libraries.useRef;
/** @type {<T>(initial: T | (() => T)) => [T, (value: T | ((before: T) => T)) => void]} */
export const useState = libraries.useState;
/** @type {<T extends Function>(callback: T, dependencies: readonly any[]) => T} */
export const useCallback = libraries.useCallback;
