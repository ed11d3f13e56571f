// The page's one Footfall, which the script and the hooks share: whoever comes first installs it.

import type { Footfall, Settings } from "../../src/footfall.js";
import { install } from "../../src/install.js";

let isInstalledHere = false;

/** Settings, as long as nobody is asked to count: see `Footfall`. On a server this does nothing. */
export function configure(settings: Omit<Settings, "manual" | "path">): void {
  if (typeof window !== "undefined") window.footfall = Object.assign(window.footfall ?? {}, settings);
}

/** The page's Footfall, which is `window.footfall`. Only for effects and event handlers: a server has no page. */
export function footfall(): Footfall {
  const found = (window.footfall ??= {});
  if (!found.send) {
    found.endpoint ??= location.origin;
    install();
    isInstalledHere = true;
  }
  return found as Footfall;
}

/** Whether the script is there and counts by itself. */
export function isScriptCounting(): boolean {
  return footfall().manual == null && !isInstalledHere;
}
