export type { Footfall, Settings, View, ViewAnswer } from "../../src/footfall.js";
export type { Content, ContentType } from "./counts.js";
export type { Dedupe } from "./dedupe.js";
export { configure, footfall } from "./page.js";
export { type Router, usePageViewTracking } from "./usePageViewTracking.js";
export { useViews, type Views } from "./useViews.js";
