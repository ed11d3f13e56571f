// Whether a content's view was counted before: on this page, in this session, or today.

import { OPT_OUT } from "../../src/queue.js";

/** How long a view is the only one: until the page is loaded again, the session ends, or the day does. */
export type Dedupe = "page" | "session" | "day";

const KEY = "footfall-views";
const onThisPage = new Set<string>();

/** Whether this is the first time that `name` is asked for. From then on it is not. */
export function isFirst(name: string, dedupe: Dedupe): boolean {
  if (onThisPage.has(name)) return false;
  const isNew = dedupe === "page" || isFirstIn(name, dedupe);
  if (isNew) onThisPage.add(name);
  return isNew;
}

function isFirstIn(name: string, dedupe: "session" | "day"): boolean {
  try {
    if (localStorage[OPT_OUT]) return true; // nothing will be sent, and nothing is to be kept
    const storage = dedupe === "day" ? localStorage : sessionStorage;
    const day = dedupe === "day" ? new Date().toDateString() : "";
    const names = namesOf(storage, day);
    if (names.includes(name)) return false;
    storage.setItem(KEY, JSON.stringify({ day, names: [...names, name] }));
  } catch {
    // without storage, once a page is the best there is
  }
  return true;
}

function namesOf(storage: Storage, day: string): string[] {
  try {
    const kept = JSON.parse(storage.getItem(KEY)!);
    return kept.day === day ? kept.names : [];
  } catch {
    return []; // not ours
  }
}
