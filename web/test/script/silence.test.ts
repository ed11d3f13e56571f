import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { open, type PageWindow, UUID7 } from "./page.js";

// Nothing that the browser lacks or refuses may be noticed by the page

const refused = () => {
  throw new Error("refused");
};
const without = (name: string) => (window: PageWindow) =>
  Object.defineProperty(window, name, { configurable: true, value: undefined });
const refusing = (name: string) => (window: PageWindow) =>
  Object.defineProperty(window, name, { configurable: true, get: refused });
const full = (window: PageWindow) => {
  const storage = new Proxy(window.localStorage, { set: refused });
  Object.defineProperty(window, "localStorage", { configurable: true, value: storage });
};

const rejections = vi.fn();
beforeEach(() => void process.on("unhandledRejection", rejections));
afterEach(() => {
  process.off("unhandledRejection", rejections);
  rejections.mockReset();
});

const use = async (before: (window: PageWindow) => unknown) => {
  const page = await open("/a", { before: (window) => void before(window) });
  await page.push("/b");
  page.footfall.track("/c");
  expect(await page.footfall.view({ entityType: "book", entityId: "7" })).toBeNull();
  await page.restore();
  await page.pass(60);
  expect(page.window.location.pathname).toBe("/b");
  expect(page.errors).toEqual([]);
  await new Promise((resolve) => setImmediate(resolve)); // when Node tells of rejections
  expect(rejections).not.toHaveBeenCalled();
  return page;
};

test.each([
  ["no localStorage", without("localStorage")],
  ["localStorage refused", refusing("localStorage")],
  ["localStorage full", full],
  ["no crypto", without("crypto")],
  [
    "no HTTPS",
    (window: PageWindow) => Object.defineProperty(window.crypto, "randomUUID", { value: undefined }),
  ],
  ["all of it there", () => {}],
])("with %s, everything is counted", async (_, before) => {
  const page = await use(before);
  expect(page.paths).toEqual(["/a", "/b", "/c", "/b"]);
  for (const id of page.ids) expect(id).toMatch(UUID7);
  expect(new Set(page.ids).size).toBe(5);
});

test.each([
  ["no localStorage", without("localStorage")],
  ["localStorage refused", refusing("localStorage")],
  ["localStorage full", full],
])("with %s, views wait in memory, and so does the opt-out", async (_, before) => {
  const page = await open("/a", {
    before: (window) => void before(window),
    answer: () => Promise.reject(new TypeError("Failed to fetch")),
  });
  page.answer = () => new Response(null, { status: 204 });
  await page.pass(10);
  expect(page.ids).toEqual([page.ids[0], page.ids[0]]);
  page.footfall.optOut();
  await page.push("/b");
  await page.pass(10);
  expect(page.sent).toHaveLength(2);
});

test.each([
  ["crypto refused", refusing("crypto")],
  ["neither fetch nor beacons", without("fetch")],
  ["fetch refused", refusing("fetch")],
  ["fetch that throws", (window: PageWindow) => Object.assign(window, { fetch: refused })],
])("with %s, nothing happens", async (_, before) => {
  expect((await use(before)).sent).toEqual([]);
});

test("without an element of its own, as in a module, the script does nothing", async () => {
  const page = await open("/a", { src: null });
  expect(page.sent).toEqual([]);
  expect(page.errors).toEqual([]);
});

test("what the site's own setting throws does not reach its navigation", async () => {
  const page = await open("/a");
  page.footfall.path = refused;
  await page.push("/b");
  expect(page.window.location.pathname).toBe("/b");
  await vi.waitFor(() => expect(rejections).toHaveBeenCalled());
});
