// The views that have no answer yet, and the opt-out. Both are in localStorage, every view under a key of its
// own, so that two tabs do not overwrite each other's. Where localStorage is refused, they are in memory.

import { uuid7 } from "./uuid7.js";

export const PREFIX = "footfall.";
export const OPT_OUT = "footfall-off";
const MOST_VIEWS = 50;

/** By key, which ends in the view's id: the path of an endpoint, a line feed, and a body. */
export let kept: Record<string, string> = {};

/** Take up what earlier pages have left. */
export const openQueue = (): void => {
  try {
    kept = localStorage || kept;
  } catch {
    // refused: `kept` stays in memory
  }
};

/** Keep a view for the endpoint at `path`. Its key; "" if the visitor has opted out. */
export const add = (path: string, body: { id?: string }): string => {
  if (kept[OPT_OUT]) return "";
  const key = PREFIX + (body.id = uuid7());
  keys()
    .slice(MOST_VIEWS - 1)
    .map(forget);
  keep(key, path + "\n" + JSON.stringify(body));
  return key;
};

/** The keys of all views. The newest come first: one that always fails must not stand in the way of others. */
export const keys = (): string[] =>
  Object.keys(kept)
    .filter((key) => key.startsWith(PREFIX))
    .sort()
    .reverse();

export const forget = (key: string): boolean => delete kept[key];

export const optOut = (isOut = true): void => {
  keys().map(forget);
  keep(OPT_OUT, isOut || "");
};

const keep = (key: string, value: string | true): void => {
  try {
    kept[key] = value as string;
  } catch {
    kept = { [key]: value as string }; // full
  }
};
