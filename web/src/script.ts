// The script on a page: its attributes are settings, and it starts by itself.

import type { Footfall } from "./footfall.js";
import { install } from "./install.js";

declare const footfall: Partial<Footfall>;

try {
  const script = document.currentScript as HTMLScriptElement;
  Object.assign((window.footfall ||= {}), script.dataset);
  footfall.endpoint ??= script.src;
  if (!footfall.send) install();
  footfall.manual ?? footfall.start!();
} catch {
  // a page must never suffer from being counted
}
