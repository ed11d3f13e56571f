// Which page is shown, so that each is counted once.

import { send } from "./delivery.js";
import type { Footfall } from "./footfall.js";
import { whenVisible } from "./visibility.js";

declare const footfall: Footfall;

let counted: string | undefined;
let referrer: string | undefined;

export const track = async (path: string): Promise<void> => {
  const excluded = footfall.exclude
    ?.replace(/\s/g, "")
    .replace(/\W/g, "\\$&")
    .replace(/\\\*/g, ".*")
    .replace(/\\,/g, "|");
  if (!RegExp(`^(${excluded})$`).test(path))
    send("api/track/page-view", { path, referrer: referrer ?? document.referrer });
  referrer = ""; // only the first page was reached from another site
};

/** Look at every navigation within this document from now on, beginning with the page that is shown. */
export const watch = (): void => {
  if (window.navigation) navigation.addEventListener("currententrychange", look);
  else
    (["pushState", "replaceState"] as const).map((name) => {
      const original = history[name];
      history[name] = (...values) => {
        original.apply(history, values);
        look();
      };
    });
  addEventListener("popstate", look);
  addEventListener("pageshow", look);
  look();
};

/** Count the page that is shown, unless it is the one that was counted last. */
export const look = (event?: Partial<PageTransitionEvent>): void => {
  if (event?.persisted) counted = ""; // back from the back/forward cache: another view of the same page
  // async, since what it throws would reach the site's own call of pushState
  whenVisible(async () => {
    const path =
      footfall.path?.() ??
      (location.pathname + (footfall.hash == null ? "" : location.hash))
        .replace(/\/*#\/*/, "/")
        .split("?")[0]!;
    if (path != counted) track((counted = path));
  });
};
