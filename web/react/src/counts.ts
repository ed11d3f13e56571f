// The counts that are shown, by content: all components of a content share one, and it never falls.

import { footfall } from "./page.js";

export type ContentType = "resource" | "course";

export interface Content {
  contentId: string;
  contentType: ContentType;
}

export interface Count {
  viewCount: number;
  isLoading: boolean;
}

export const UNKNOWN: Count = { viewCount: 0, isLoading: true };

const counts = new Map<string, Count>();
const listeners = new Map<string, Set<() => void>>();
const reading = new Set<string>();

export function nameOf({ contentId, contentType }: Content): string {
  return `${contentType}:${contentId}`;
}

export function countOf(content: Content): Count {
  return counts.get(nameOf(content)) ?? UNKNOWN;
}

/** Call `listener` when the count changes. The first one that asks has it read. Returns how to stop that. */
export function listen(content: Content, listener: () => void): () => void {
  const name = nameOf(content);
  const all = listeners.get(name) ?? new Set();
  listeners.set(name, all.add(listener));
  if (all.size === 1) void read(content);
  return () => all.delete(listener);
}

/** Show what an endpoint has answered; without a number in it, what was shown before. */
export function show(content: Content, answer: unknown): void {
  const name = nameOf(content);
  const before = countOf(content);
  const answered = Number((answer as { count?: unknown } | null)?.count ?? 0);
  const viewCount = Math.max(before.viewCount, answered);
  if (viewCount === before.viewCount && !before.isLoading) return;
  counts.set(name, { viewCount, isLoading: false });
  listeners.get(name)?.forEach((listener) => listener());
}

async function read(content: Content): Promise<void> {
  const name = nameOf(content);
  if (reading.has(name)) return;
  reading.add(name);
  show(content, await answerOf(content).catch(() => null));
  reading.delete(name);
}

async function answerOf({ contentId, contentType }: Content): Promise<unknown> {
  const url = new URL("api/views", footfall().endpoint);
  url.search = String(new URLSearchParams({ contentId, contentType }));
  const response = await fetch(url, { credentials: "omit" });
  return response.ok ? response.json() : null;
}
