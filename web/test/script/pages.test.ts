import { JSDOM, requestInterceptor } from "jsdom";
import { describe, expect, test, vi } from "vitest";
import { script } from "../../bundle.js";
import { open, type Page, type PageWindow, SITE, UUID7 } from "./page.js";

/** The part of the Navigation API that matters here, which jsdom lacks. */
function addNavigation(window: PageWindow): void {
  const navigation = new window.EventTarget();
  const { history } = window;
  for (const name of ["pushState", "replaceState"] as const) {
    const original = history[name].bind(history);
    Object.getPrototypeOf(history)[name] = (...values: Parameters<History["pushState"]>) => {
      original(...values);
      navigation.dispatchEvent(new window.Event("currententrychange"));
    };
  }
  Object.assign(window, { navigation });
}

const BROWSERS = { "with the Navigation API": addNavigation, "without the Navigation API": () => {} };

describe.each(Object.entries(BROWSERS))("a browser %s", (_, before) => {
  test("counts the first page", async () => {
    const page = await open("/a", { before });
    expect(page.paths).toEqual(["/a"]);
    expect(page.sent[0]!.body.id).toMatch(UUID7);
  });

  test("counts what is pushed and what is replaced", async () => {
    const page = await open("/a", { before });
    await page.push("/b");
    await page.replace("/c");
    expect(page.paths).toEqual(["/a", "/b", "/c"]);
    expect(new Set(page.ids).size).toBe(3);
  });

  test("counts two pages that are pushed at once", async () => {
    const page = await open("/a", { before });
    page.window.history.pushState(null, "", "/b");
    page.window.history.pushState(null, "", "/c");
    await page.settle();
    expect(page.paths).toEqual(["/a", "/b", "/c"]);
  });

  test("counts going back and forward", async () => {
    const page = await open("/a", { before });
    await page.push("/b");
    await travel(page, -1);
    await travel(page, 1);
    expect(page.paths).toEqual(["/a", "/b", "/a", "/b"]);
  });

  test("does not count another query or fragment of the same path", async () => {
    const page = await open("/a?q=1", { before });
    await page.push("/a?q=2");
    await page.replace("/a#part");
    page.window.location.hash = "other";
    await travel(page, -1);
    expect(page.paths).toEqual(["/a"]);
    await page.push("/b#part");
    expect(page.paths).toEqual(["/a", "/b"]);
  });

  test("counts a page that comes back from the back/forward cache once more", async () => {
    const page = await open("/a", { before });
    await page.restore();
    expect(page.paths).toEqual(["/a", "/a"]);
    expect(new Set(page.ids).size).toBe(2);
  });

  test("counts nothing when a page is shown for the first time", async () => {
    const page = await open("/a", { before });
    page.window.dispatchEvent(Object.assign(new page.window.Event("pageshow"), { persisted: false }));
    await page.settle();
    expect(page.paths).toEqual(["/a"]);
  });

  test("counts once with two scripts", async () => {
    const page = await open("/a", { before });
    page.load(`${SITE}/footfall.js`);
    await page.push("/b");
    await page.restore();
    expect(page.paths).toEqual(["/a", "/b", "/b"]);
  });
});

test("with the Navigation API, also what passes the history by is counted, and the history stays as it is", async () => {
  const page = await open("/a", { before: addNavigation });
  const { history } = page.window;
  Object.getPrototypeOf(history).pushState.call(history, null, "", "/b");
  await page.settle();
  expect(page.paths).toEqual(["/a", "/b"]);
  expect(Object.keys(history)).toEqual([]);
});

describe("a page that nobody sees", () => {
  test("is counted when somebody does, as what it is then", async () => {
    const page = await open("/a", { hidden: true });
    await page.push("/b");
    await page.push("/c");
    expect(page.sent).toEqual([]);
    await page.turn("visible");
    expect(page.paths).toEqual(["/c"]);
  });

  test("is not counted again when it is seen again", async () => {
    const page = await open("/a");
    await page.turn("hidden");
    await page.turn("visible");
    expect(page.paths).toEqual(["/a"]);
  });

  test("is counted when it went on in the background", async () => {
    const page = await open("/a");
    await page.turn("hidden");
    await page.push("/b");
    expect(page.paths).toEqual(["/a"]);
    await page.turn("visible");
    expect(page.paths).toEqual(["/a", "/b"]);
    await page.turn("hidden");
    await page.turn("visible");
    expect(page.paths).toEqual(["/a", "/b"]);
  });

  test("has its views wait, also those it is asked for, and stores none", async () => {
    const page = await open("/a", { hidden: true, attributes: { "data-manual": "" } });
    page.footfall.track("/b");
    const answer = page.footfall.view({ entityType: "book", entityId: "7" });
    await page.settle();
    expect(page.sent).toEqual([]);
    expect(page.queued).toEqual([]);
    await page.pass(3600);
    await page.turn("visible");
    await answer;
    expect(page.sent.map(({ body }) => body.path ?? body.entity_id)).toEqual(["/b", "7"]);
    const shownAt = new Date("2026-11-20T13:00:00.000Z").getTime();
    expect(parseInt(page.ids[0]!.replace("-", ""), 16)).toBe(shownAt);
  });
});

describe("the referrer", () => {
  const referrer = "https://search.example/?q=books";

  test("is sent with the first page only", async () => {
    const page = await open("/a", { referrer });
    await page.push("/b");
    await page.restore();
    expect(page.sent.map(({ body }) => body.referrer)).toEqual([referrer, "", ""]);
  });

  test("is not that of a page after an excluded one", async () => {
    const page = await open("/a", { referrer, attributes: { "data-exclude": "/a" } });
    await page.push("/b");
    expect(page.sent.map(({ body }) => body.referrer)).toEqual([""]);
  });
});

test("what the site's own history methods return and throw stays as it is", async () => {
  const page = await open("/a");
  expect(() => page.window.history.pushState(null, "", "https://elsewhere.example/")).toThrow("elsewhere");
  await page.settle();
  expect(page.paths).toEqual(["/a"]);
});

test("the element on a page loads it", async () => {
  vi.useRealTimers();
  const code = await script();
  const answer = vi.fn((..._: unknown[]) => Promise.resolve(new Response(null, { status: 204 })));
  new JSDOM(`<script defer src="https://stats.example/footfall.js" data-exclude="/b"></script>`, {
    url: `${SITE}/a`,
    runScripts: "dangerously",
    pretendToBeVisual: true,
    beforeParse: (window) => void Object.assign(window, { fetch: answer }),
    resources: {
      interceptors: [
        requestInterceptor(() => new Response(code, { headers: { "Content-Type": "text/javascript" } })),
      ],
    },
  });
  await vi.waitFor(() => expect(answer).toHaveBeenCalledOnce());
  expect(String(answer.mock.calls[0]![0])).toBe("https://stats.example/api/track/page-view");
});

async function travel(page: Page, steps: number): Promise<void> {
  const arrived = new Promise((resolve) => page.window.addEventListener("popstate", resolve, { once: true }));
  page.window.history.go(steps);
  await vi.waitFor(() => page.settle());
  await arrived;
  await page.settle();
}
