import { describe, expect, test } from "vitest";
import type { Router } from "../../react/src/index.js";
import { hide, load, mount, paths, sent, settle, turnVisible } from "./page.js";

describe.each([
  ["Strict Mode", true],
  ["normal mode", false],
])("in %s", (_, strict) => {
  const routers: [string, (path: string) => Router][] = [
    ["React Router", (path) => ({ pathname: path, search: "?q=1", hash: "#part", state: null, key: path })],
    ["Next.js' app router", (path) => path],
    ["an object of a path", (pathname) => ({ pathname })],
    [
      "Next.js' pages router",
      (path) => ({ pathname: "/post/[id]", asPath: `${path}?q=1#part`, isReady: true }),
    ],
  ];

  test.each(routers)("the paths of %s are counted, each once", async (_, routerAt) => {
    const { usePageViewTracking } = await load();
    let path = "/one";
    const page = await mount(() => usePageViewTracking({ router: routerAt(path) }), strict);
    await page.rerender();
    expect(paths()).toEqual(["/one"]);
    for (path of ["/two", "/two", "/one"]) await page.rerender();
    expect(paths()).toEqual(["/one", "/two", "/one"]);
    expect(new Set(sent.map(({ body }) => body.id)).size).toBe(3);
  });

  test.each<[string, Router]>([
    ["null", null],
    ["no pathname", { pathname: null }],
    ["a pattern", { pathname: "/post/[id]", asPath: "/post/[id]", isReady: false }],
  ])("a router that is not ready (%s) is waited for", async (_, notYet) => {
    const { usePageViewTracking } = await load();
    let router = notYet;
    const page = await mount(() => usePageViewTracking({ router }), strict);
    expect(paths()).toEqual([]);
    router = "/post/7";
    await page.rerender();
    expect(paths()).toEqual(["/post/7"]);
  });

  test("without a router, the location is counted", async () => {
    const { usePageViewTracking } = await load();
    const page = await mount(() => usePageViewTracking(), strict);
    history.pushState(null, "", "/b");
    history.pushState(null, "", "/b?q=1#part");
    await page.rerender();
    await settle();
    expect(paths()).toEqual(["/a", "/b"]);
  });

  test("several components count once", async () => {
    const { usePageViewTracking } = await load();
    await mount(() => {
      usePageViewTracking({ router: "/one" });
      usePageViewTracking({ router: "/one" });
    }, strict);
    expect(paths()).toEqual(["/one"]);
  });

  test("mounting again on the same page does not count it again", async () => {
    const { usePageViewTracking } = await load();
    const page = await mount(() => usePageViewTracking({ router: "/one" }), strict);
    await page.unmount();
    await mount(() => usePageViewTracking({ router: "/one" }), strict);
    expect(paths()).toEqual(["/one"]);
  });

  test("a page that nobody sees waits", async () => {
    hide(true);
    const { usePageViewTracking } = await load();
    let router = "/one";
    const page = await mount(() => usePageViewTracking({ router }), strict);
    router = "/two";
    await page.rerender();
    expect(paths()).toEqual([]);
    await turnVisible();
    expect(paths()).toEqual(["/two"]);
  });

  test("a page that comes back from the back/forward cache is counted again", async () => {
    const { usePageViewTracking } = await load();
    await mount(() => usePageViewTracking({ router: "/one" }), strict);
    dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
    await settle();
    expect(paths()).toEqual(["/one", "/one"]);
  });
});

test("configure says where, who and what not", async () => {
  const { configure, usePageViewTracking } = await load();
  configure({ endpoint: "https://stats.example", token: () => "secret", exclude: "/admin/*" });
  let router = "/admin/users";
  const page = await mount(() => usePageViewTracking({ router }));
  router = "/one";
  await page.rerender();
  expect(sent).toMatchObject([
    {
      url: "https://stats.example/api/track/page-view",
      options: { headers: { Authorization: "Bearer secret" }, credentials: "omit", keepalive: true },
      body: { path: "/one" },
    },
  ]);
});

test("footfall() counts what the hooks do not", async () => {
  const { footfall } = await load();
  footfall().track("/gallery/1");
  await footfall().view({ entityType: "book", entityId: "7" });
  expect(footfall()).toBe(window.footfall);
  expect(sent.map(({ body }) => body.path ?? body.entity_id)).toEqual(["/gallery/1", "7"]);
});

test("without configure, the page's own origin is asked", async () => {
  const { usePageViewTracking } = await load();
  await mount(() => usePageViewTracking());
  expect(sent[0]!.url).toBe(`${location.origin}/api/track/page-view`);
});
