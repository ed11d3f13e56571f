// From a view to its answer: queued, sent at once, and sent again until there is an answer.

import type { Footfall } from "./footfall.js";
import { add, forget, kept, keys, PREFIX } from "./queue.js";
import { timePart } from "./uuid7.js";
import { whenVisible } from "./visibility.js";

declare const footfall: Footfall;

const RETRY_SECONDS = 10;
// The server promises "once" for ids of the last 24 hours; 5 minutes are for the way there and slow clocks
const MOST_AGE_MS = 86_100_000;

let pause: ReturnType<typeof setTimeout> | 0;

export const send = (path: string, body: object): Promise<unknown> =>
  // Into the queue before it is sent, since the page may be gone before the answer comes
  deliver(new Promise<void>(whenVisible).then(() => add(path, body)));

/** Send what is in the queue, until something cannot be sent. */
export const resume = async (): Promise<void> => {
  pause = 0;
  for (const key of keys()) {
    if (key < PREFIX + timePart(Date.now() - MOST_AGE_MS)) forget(key);
    else await deliver(key);
  }
};

const deliver = async (view: string | Promise<string>): Promise<unknown> => {
  let key = "";
  let retryAfter: string | null | undefined;
  try {
    key = await view;
    if (!pause) {
      const [path, body] = kept[key]!.split("\n") as [string, string];
      const token = await footfall.token?.();
      const url = new URL(path, footfall.endpoint);
      if (window.fetch as unknown) {
        // A text: JSON would cost pages of another origin a preflight
        const response = await fetch(url, {
          method: "POST",
          body,
          headers: token ? { Authorization: "Bearer " + token } : {},
          keepalive: true,
          credentials: "omit",
        });
        retryAfter = response.headers.get("Retry-After");
        if (response.status != 429 && response.status < 500) {
          forget(key);
          if (response.ok) return await response.json();
        }
      } else if (!token && navigator.sendBeacon(url, body)) forget(key);
    }
  } catch {
    // no network, no token, no body: all that matters is whether the view is still in the queue
  }
  if (kept[key]) pause ||= setTimeout(resume, (+retryAfter! || RETRY_SECONDS) * 1000);
  return null;
};
