// @ts-check
/** The JSON schema of a job spec, as far as a form needs it. */

/** @typedef {any} Schema */
/** @typedef {Record<string, Schema>} Definitions `components.schemas` of /openapi.json. */
/** @typedef {{label: string, schema?: Schema, value?: any}} Variant An alternative: an object with fields, or a fixed value. */
/**
 * @typedef {{kind: "object" | "variants" | "choice" | "boolean" | "number" | "word_or_number" | "text" | "list" | "yaml", nullable: boolean,
 *   options: string[], variants: Variant[], schema: Schema}} Form
 * How a field is edited. `options` are the values of a choice, or the words that a number may be replaced by.
 */

/** Follow a reference; what is written beside it wins. @param {Schema} schema @param {Definitions} definitions @returns {Schema} */
export function resolve(schema, definitions) {
  if (!schema.$ref) return schema;
  const { $ref, ...beside } = schema;
  return { ...definitions[$ref.split("/").at(-1)], ...beside };
}

/** Return how a field is edited. @param {Schema} schema @param {Definitions} definitions @returns {Form} */
export function formOf(schema, definitions) {
  const resolved = resolve(schema, definitions);
  const choices = alternatives(resolved, definitions);
  const others = choices.filter((item) => item.type !== "null");
  const form = { nullable: others.length < choices.length, options: [], variants: [], schema: resolved };
  if (others.length === 1) return { ...form, ...simpleForm(others[0]), schema: { ...others[0], ...resolved } };
  if (others.some((item) => item.properties)) return { ...form, kind: "variants", variants: others.flatMap(variantsOf) };
  return { ...form, kind: "word_or_number", options: others.flatMap((item) => item.enum ?? (item.const ? [item.const] : [])) };
}

/** @param {Schema} schema @param {Definitions} definitions @returns {Schema[]} */
function alternatives(schema, definitions) {
  const nested = schema.anyOf ?? schema.oneOf;
  return nested ? nested.flatMap((/** @type {Schema} */ item) => alternatives(resolve(item, definitions), definitions)) : [schema];
}

/** @param {Schema} schema @returns {{kind: Form["kind"], options?: string[]}} */
function simpleForm(schema) {
  if (schema.enum) return { kind: "choice", options: schema.enum };
  if (schema.const !== undefined) return { kind: "choice", options: [schema.const] };
  if (schema.properties) return { kind: "object" };
  if (schema.type === "boolean") return { kind: "boolean" };
  if (schema.type === "integer" || schema.type === "number") return { kind: "number" };
  if (schema.type === "string") return { kind: "text" };
  const items = schema.items ?? schema.prefixItems?.[0];
  return { kind: schema.type === "array" && items?.type !== "array" ? "list" : "yaml" };
}

/** @param {Schema} schema @returns {Variant[]} */
function variantsOf(schema) {
  if (schema.properties) return [{ label: firstSentence(schema.description ?? schema.title)[0].replace(/\.$/, ""), schema }];
  if (schema.type === "boolean") return [{ label: "no", value: false }, { label: "yes", value: true }];
  return (schema.enum ?? [schema.const]).map((/** @type {string} */ value) => ({ label: value, value }));
}

/** Return the index of the variant that a value has, or -1. @param {Variant[]} variants @param {any} value */
export function variantOf(variants, value) {
  if (value === null || typeof value !== "object") return variants.findIndex((item) => !item.schema && item.value === value);
  return variants.findIndex(({ schema }) => {
    if (!schema || !(schema.required ?? []).every((/** @type {string} */ name) => name in value)) return false;
    const type = schema.properties.type;
    const admitted = type && (type.enum ?? [type.const]);
    return !admitted || admitted.includes(value.type ?? type.default);
  });
}

/** Return the value that a variant starts with: its required fields, and its type. @param {Variant} variant */
export function initialValue({ schema, value }) {
  if (!schema) return value;
  const names = Object.keys(schema.properties).filter((name) => name === "type" || schema.required?.includes(name));
  return Object.fromEntries(names.map((name) => {
    const { const: fixed, enum: options, minimum } = schema.properties[name];
    return [name, fixed ?? options?.[0] ?? minimum ?? ""];
  }));
}

/** Return a spec without the values that are the defaults anyway. @param {any} value @param {Schema} schema @param {Definitions} definitions @returns {any} */
export function withoutDefaults(value, schema, definitions) {
  const form = formOf(schema, definitions);
  const chosen = form.kind === "variants" ? form.variants[variantOf(form.variants, value)]?.schema : form.kind === "object" ? form.schema : null;
  if (!chosen || value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).flatMap(([name, item]) => {
    const property = chosen.properties[name];
    if (!property) return [[name, item]];
    if (name !== "type" && !chosen.required?.includes(name) && isDefault(item, resolve(property, definitions))) return [];
    const inner = withoutDefaults(item, property, definitions);
    return formOf(property, definitions).kind === "object" && Object.keys(inner).length === 0 ? [] : [[name, inner]];
  });
  return Object.fromEntries(entries);
}

/** @param {any} value @param {Schema} schema */
const isDefault = (value, schema) => JSON.stringify(value ?? null) === JSON.stringify(schema.default ?? null);

/** Split a description after its first sentence. @param {string} text @returns {[string, string]} */
export function firstSentence(text) {
  const match = /^([\s\S]*?\.)\s+([\s\S]*)$/.exec(text);
  return match ? [match[1], match[2]] : [text, ""];
}
