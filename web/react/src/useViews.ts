import { useCallback, useSyncExternalStore } from "react";
import { whenVisible } from "../../src/visibility.js";
import { type Content, type Count, countOf, listen, nameOf, show, UNKNOWN } from "./counts.js";
import { type Dedupe, isFirst } from "./dedupe.js";
import { footfall } from "./page.js";

export interface Views extends Count {
  /**
   * Count a view of the content, at most one while `dedupe` lasts. The same function as long as `contentId`,
   * `contentType` and `dedupe` are the same.
   */
  incrementView: () => void;
}

/**
 * The view count of a content, and how to raise it.
 *
 * `viewCount` is 0 until it is known, and never falls. When it cannot be read, what was shown stays.
 */
export function useViews({ contentId, contentType, dedupe = "page" }: Content & { dedupe?: Dedupe }): Views {
  const subscribe = useCallback(
    (listener: () => void) => listen({ contentId, contentType }, listener),
    [contentId, contentType],
  );
  const read = () => countOf({ contentId, contentType });
  const count = useSyncExternalStore(subscribe, read, () => UNKNOWN);
  const incrementView = useCallback(
    () => void increment({ contentId, contentType }, dedupe),
    [contentId, contentType, dedupe],
  );
  return { ...count, incrementView };
}

async function increment(content: Content, dedupe: Dedupe): Promise<void> {
  if (typeof window === "undefined") return;
  await new Promise<void>(whenVisible); // a page that is never seen must not be what was counted today
  if (!isFirst(nameOf(content), dedupe)) return;
  const answer = await footfall().send("api/views", { ...content });
  if (answer) show(content, answer);
}
