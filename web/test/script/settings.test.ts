import { describe, expect, test, vi } from "vitest";
import type { Settings } from "../../src/footfall.js";
import { counted, offline, open, type PageWindow, SITE, status } from "./page.js";

const given = (settings: Settings) => (window: PageWindow) => {
  window.footfall = settings as PageWindow["footfall"];
};

describe("the endpoint", () => {
  test.each([
    ["where the script comes from", "https://stats.example/footfall.js?v=1", {}, "https://stats.example"],
    ["an attribute", `${SITE}/x.js`, { "data-endpoint": "https://stats.example" }, "https://stats.example"],
    ["a URL with a path", `${SITE}/x.js`, { "data-endpoint": `${SITE}/stats/` }, `${SITE}/stats`],
  ])("is %s", async (_, src, attributes, expected) => {
    const page = await open("/a", { src, attributes });
    expect(page.sent[0]!.url).toBe(`${expected}/api/track/page-view`);
  });

  test("may be given before the script is there", async () => {
    const page = await open("/a", { before: given({ endpoint: "https://stats.example" }) });
    expect(page.sent[0]!.url).toBe("https://stats.example/api/track/page-view");
  });
});

describe("excluded paths", () => {
  const exclude = "/admin/*, /login,\n *.pdf,/a+b(c),/*/draft/*";
  test.each(["/admin/", "/admin/users/7", "/login", "/files/x.pdf", "/a+b(c)", "/blog/draft/2"])(
    "%s",
    async (path) => {
      const page = await open(path, { attributes: { "data-exclude": exclude } });
      page.footfall.track(path);
      await page.settle();
      expect(page.sent).toEqual([]);
    },
  );

  test.each(["/admin", "/administration", "/login/", "/a/login", "/xpdf", "/aab(c)", "/draft/", "/"])(
    "not %s",
    async (path) => {
      const page = await open(path, { attributes: { "data-exclude": exclude } });
      expect(page.paths).toEqual([path]);
    },
  );

  test("lie between two views of the same page", async () => {
    const page = await open("/a", { attributes: { "data-exclude": "/admin" } });
    await page.push("/admin");
    await page.push("/a");
    expect(page.paths).toEqual(["/a", "/a"]);
  });
});

describe("manual", () => {
  test("counts what it is told, each time", async () => {
    const page = await open("/a", { attributes: { "data-manual": "" } });
    await page.push("/b");
    await page.restore();
    expect(page.sent).toEqual([]);
    page.footfall.track("/c");
    page.footfall.track("/c");
    await page.settle();
    expect(page.paths).toEqual(["/c", "/c"]);
    expect(new Set(page.ids).size).toBe(2);
  });

  test("until it is started", async () => {
    const page = await open("/a", { attributes: { "data-manual": "" } });
    page.footfall.start();
    page.footfall.start();
    await page.push("/b");
    expect(page.paths).toEqual(["/a", "/b"]);
  });
});

test("track counts also where pages are counted by themselves", async () => {
  const page = await open("/a");
  page.footfall.track("/gallery/1");
  await page.settle();
  await page.push("/a?photo=2");
  expect(page.paths).toEqual(["/a", "/gallery/1"]);
});

describe("the fragment", () => {
  test.each([
    ["/", "/"],
    ["/#/", "/"],
    ["/#/books", "/books"],
    ["/#books", "/books"],
    ["/app#/books", "/app/books"],
    ["/app/#/books?page=2", "/app/books"],
    ["/app?x=1#/books", "/app/books"],
  ])("of %s makes the path %s", async (url, path) => {
    const page = await open(url, { attributes: { "data-hash": "" } });
    expect(page.paths).toEqual([path]);
  });

  test("is navigated", async () => {
    const page = await open("/#/a", { attributes: { "data-hash": "" } });
    page.window.location.hash = "#/b";
    await vi.waitFor(async () => {
      await page.settle();
      expect(page.paths).toEqual(["/a", "/b"]);
    });
    page.window.location.hash = "#/b?page=2";
    await page.push("#/c");
    expect(page.paths).toEqual(["/a", "/b", "/c"]);
  });
});

describe("the token", () => {
  const headers = { Authorization: "Bearer secret" };

  test.each([
    ["a text", () => "secret"],
    ["a promise", () => Promise.resolve("secret")],
  ])("may be %s", async (_, token) => {
    const page = await open("/a", { before: given({ token }) });
    expect(page.sent[0]!.options.headers).toEqual(headers);
  });

  test.each([undefined, null, ""])("%j is nobody's", async (token) => {
    const page = await open("/a", { before: given({ token: () => token }) });
    expect(page.sent[0]!.options.headers).toEqual({});
  });

  test("is asked for with every attempt, and never stored", async () => {
    let token = "old";
    const page = await open("/a", { before: given({ token: () => token }), answer: () => status(503) });
    token = "secret";
    expect(JSON.stringify(page.stored)).not.toContain("old");
    await page.pass(10);
    expect(page.sent[1]!.options.headers).toEqual(headers);
  });

  test("may be set later", async () => {
    const page = await open("/a");
    page.footfall.token = () => "secret";
    await page.push("/b");
    expect(page.sent.map(({ options }) => options.headers)).toEqual([{}, headers]);
  });

  test.each([
    ["rejects", () => Promise.reject(new Error("no token"))],
    [
      "throws",
      () => {
        throw new Error("no token");
      },
    ],
  ])("that %s keeps the view back", async (_, token) => {
    const page = await open("/a", { before: given({ token }) });
    expect(page.sent).toEqual([]);
    expect(page.queued).toHaveLength(1);
    page.footfall.token = () => "secret";
    await page.pass(10);
    expect(page.sent[0]!.options.headers).toEqual(headers);
    expect(page.queued).toEqual([]);
  });
});

describe("opting out", () => {
  test("stops everything and forgets what is queued", async () => {
    const page = await open("/a", { answer: offline });
    page.footfall.optOut();
    page.answer = counted;
    await page.push("/b");
    expect(await page.footfall.view({ entityType: "book", entityId: "7" })).toBeNull();
    await page.pass(3600);
    expect(page.sent).toHaveLength(1);
    expect(page.stored).toEqual({ "footfall-off": "true" });
  });

  test("holds on other pages", async () => {
    const page = await open("/a", { stored: { "footfall-off": "1" } });
    await page.push("/b");
    expect(page.sent).toEqual([]);
  });

  test("can be taken back", async () => {
    const page = await open("/a", { stored: { "footfall-off": "1" } });
    page.footfall.optOut(false);
    await page.push("/b");
    expect(page.paths).toEqual(["/b"]);
  });
});

test("the path may come from the site", async () => {
  let path = "/one";
  const page = await open("/a", { before: given({ path: () => path }) });
  await page.push("/b");
  expect(page.paths).toEqual(["/one"]);
  path = "/two";
  page.footfall.start();
  await page.settle();
  expect(page.paths).toEqual(["/one", "/two"]);
});
