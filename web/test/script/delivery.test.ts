import { describe, expect, test, vi } from "vitest";
import { counted, NOW, offline, open, type Page, type PageWindow, SITE, status } from "./page.js";

describe("a view", () => {
  test("is sent as text, without cookies, and outlives the page", async () => {
    const page = await open("/a");
    const [{ url, options, body }] = page.sent as [(typeof page.sent)[0]];
    expect(url).toBe(`${SITE}/api/track/page-view`);
    expect(options).toMatchObject({ method: "POST", keepalive: true, credentials: "omit", headers: {} });
    expect(typeof options.body).toBe("string");
    expect(Object.keys(body).sort()).toEqual(["id", "path", "referrer"]);
  });

  test("is in the queue until it is answered, and no longer", async () => {
    let answer!: (response: Response) => void;
    const page = await open("/a", { answer: () => new Promise((resolve) => (answer = resolve)) });
    expect(page.queued).toEqual([`footfall.${page.ids[0]}`]);
    answer(counted());
    await page.settle();
    expect(page.stored).toEqual({});
  });

  test("of something else is answered", async () => {
    const answer = { counted: true, outcome: "counted", first_view: true, view_count: 8 };
    const page = await open("/a", { attributes: { "data-manual": "" }, answer: () => Response.json(answer) });
    const view = {
      entityType: "book",
      entityId: "7",
      viewType: "reader_open",
      viewSource: "widget",
    } as const;
    expect(await page.footfall.view(view)).toEqual(answer);
    expect(page.sent[0]!.url).toBe(`${SITE}/api/track/view`);
    const { id, ...body } = page.sent[0]!.body;
    expect(body).toEqual({
      entity_type: "book",
      entity_id: "7",
      view_type: "reader_open",
      view_source: "widget",
    });
  });

  test("without view type and source leaves them to the server", async () => {
    const page = await open("/a", { attributes: { "data-manual": "" } });
    await page.footfall.view({ entityType: "book", entityId: "7" });
    expect(Object.keys(page.sent[0]!.body)).toEqual(["entity_type", "entity_id", "id"]);
  });
});

describe.each([
  ["no network", offline],
  ["500", () => status(500)],
  ["503", () => status(503)],
  ["504", () => status(504)],
  ["429", () => status(429)],
])("after %s", (_, failure) => {
  test("a view is sent again after 10 seconds, with the same id", async () => {
    const page = await open("/a", { answer: failure });
    expect(page.queued).toHaveLength(1);
    page.answer = counted;
    await page.pass(9.9);
    expect(page.sent).toHaveLength(1);
    await page.pass(0.1);
    expect(page.sent).toHaveLength(2);
    expect(page.sent[1]!.options.body).toBe(page.sent[0]!.options.body);
    expect(page.queued).toEqual([]);
    await page.pass(3600);
    expect(page.sent).toHaveLength(2);
  });

  test("a content view has no answer", async () => {
    const page = await open("/a", { answer: failure });
    expect(await page.footfall.view({ entityType: "book", entityId: "7" })).toBeNull();
    expect(page.queued).toHaveLength(2);
  });

  test("views wait for the next attempt, and the newest goes first", async () => {
    const page = await open("/a", { answer: failure });
    await page.pass(1);
    await page.push("/b");
    await page.pass(1);
    await page.push("/c");
    expect(page.paths).toEqual(["/a"]);
    page.answer = counted;
    await page.pass(8);
    expect(page.paths).toEqual(["/a", "/c", "/b", "/a"]);
  });

  test("attempts stop at the first that fails, and go on", async () => {
    const page = await open("/a", { answer: failure });
    await page.push("/b");
    await page.pass(10);
    await page.pass(10);
    expect(page.sent).toHaveLength(3);
    expect(page.queued).toHaveLength(2);
  });
});

describe("Retry-After", () => {
  test.each([429, 503])("of a %i is waited for", async (code) => {
    const page = await open("/a", { answer: () => status(code, { "Retry-After": "120" }) });
    page.answer = counted;
    await page.push("/b");
    await page.pass(119.9);
    expect(page.paths).toEqual(["/a"]);
    await page.pass(0.1);
    expect(page.paths.sort()).toEqual(["/a", "/a", "/b"]);
    expect(new Set(page.ids).size).toBe(2);
  });

  test("that is no number of seconds counts as none", async () => {
    const date = "Fri, 20 Nov 2026 13:00:00 GMT";
    const page = await open("/a", { answer: () => status(503, { "Retry-After": date }) });
    await page.pass(9.9);
    expect(page.sent).toHaveLength(1);
    await page.pass(0.1);
    expect(page.sent).toHaveLength(2);
  });
});

test.each([400, 401, 403, 404, 413])("a %i is final", async (code) => {
  const page = await open("/a", { answer: () => status(code) });
  expect(page.queued).toEqual([]);
  expect(await page.footfall.view({ entityType: "book", entityId: "7" })).toBeNull();
  await page.pass(3600);
  expect(page.sent).toHaveLength(2);
});

test("an answer that is no JSON is an answer", async () => {
  const page = await open("/a", { answer: () => new Response("<p>OK", { status: 200 }) });
  expect(await page.footfall.view({ entityType: "book", entityId: "7" })).toBeNull();
  await page.pass(3600);
  expect(page.sent).toHaveLength(2);
});

test("a view that always fails does not stand in the way of later ones", async () => {
  const page = await open("/bad", { answer: ({ body }) => (body.path === "/bad" ? status(500) : counted()) });
  for (const path of ["/b", "/c"]) {
    await page.pass(1);
    await page.push(path);
    await page.pass(9);
  }
  expect(page.paths.filter((path) => path !== "/bad")).toEqual(["/b", "/c"]);
});

describe("the next page", () => {
  const later = async (page: Page, seconds: number) => {
    await page.pass(seconds);
    return open("/b", { stored: page.stored });
  };

  test("sends what the one before could not, with the same id", async () => {
    const before = await open("/a", { answer: offline });
    const page = await later(before, 5);
    expect(page.paths.sort()).toEqual(["/a", "/b"]);
    expect(page.ids).toContain(before.ids[0]);
    expect(page.stored).toEqual({});
  });

  test("sends what the one before got no answer for", async () => {
    const before = await open("/a", { answer: () => new Promise(() => {}) });
    const page = await later(before, 0);
    expect(page.ids).toContain(before.ids[0]);
  });

  test("sends nothing that was answered", async () => {
    const before = await open("/a");
    const page = await later(before, 0);
    expect(page.paths).toEqual(["/b"]);
  });

  const HOURS = 3600;
  test.each([
    [23 * HOURS, ["/a", "/b"]],
    [24 * HOURS, ["/b"]],
  ])("after %i seconds sends %j", async (seconds, paths) => {
    const before = await open("/a", { answer: offline });
    const page = await later(before, seconds);
    expect(page.paths.sort()).toEqual(paths);
    expect(page.stored).toEqual({});
  });
});

test("a page that is open for a day forgets what is too old", async () => {
  const page = await open("/a", { answer: offline });
  await page.pass(25 * 3600);
  expect(page.queued).toEqual([]);
  const attempts = page.sent.length;
  await page.pass(3600);
  expect(page.sent).toHaveLength(attempts);
});

test("the queue holds 50 views, the newest", async () => {
  const page = await open("/0", { answer: offline });
  for (let i = 1; i <= 60; i++) {
    await page.pass(0.1);
    await page.push(`/${i}`);
  }
  expect(page.queued).toHaveLength(50);
  page.answer = counted;
  await page.pass(10);
  const expected = Array.from({ length: 50 }, (_, i) => `/${60 - i}`);
  expect(page.paths.slice(1)).toEqual(expected);
});

test("an entry that another tab has sent is not sent again", async () => {
  const page = await open("/a", { answer: offline });
  page.window.localStorage.removeItem(page.queued[0]!);
  await page.pass(60);
  expect(page.sent).toHaveLength(1);
});

test("what else the site keeps in localStorage stays", async () => {
  const stored = { footfall: "1", other: "2", "footfall-views": "3" };
  const page = await open("/a", { stored });
  page.footfall.optOut();
  page.footfall.optOut(false);
  expect(page.stored).toMatchObject(stored);
});

describe("without fetch", () => {
  const withBeacon = (beacon: (url: URL, body: string) => boolean) => (window: PageWindow) => {
    Object.assign(window, { fetch: undefined });
    Object.assign(window.navigator, { sendBeacon: beacon });
  };

  test("a view is sent as a beacon", async () => {
    const beacon = vi.fn((_url: URL, _body: string) => true);
    const page = await open("/a", { before: withBeacon(beacon) });
    expect(String(beacon.mock.calls[0]![0])).toBe(`${SITE}/api/track/page-view`);
    expect(JSON.parse(beacon.mock.calls[0]![1])).toMatchObject({ path: "/a" });
    expect(page.queued).toEqual([]);
    await page.pass(3600);
    expect(beacon).toHaveBeenCalledOnce();
  });

  test("a beacon that is not taken is tried again with the same id", async () => {
    const beacon = vi.fn((_url: URL, _body: string) => beacon.mock.calls.length > 1);
    await (await open("/a", { before: withBeacon(beacon) })).pass(10);
    expect(beacon).toHaveBeenCalledTimes(2);
    expect(beacon.mock.calls[1]![1]).toBe(beacon.mock.calls[0]![1]);
  });

  test("a signed-in user's view waits, since a beacon carries no token", async () => {
    const beacon = vi.fn(() => true);
    const page = await open("/a", {
      before: (window) => {
        withBeacon(beacon)(window);
        window.footfall = { token: () => "t" } as typeof window.footfall;
      },
    });
    expect(beacon).not.toHaveBeenCalled();
    expect(page.queued).toHaveLength(1);
  });
});

test("ids are of the moment of the view", async () => {
  const page = await open("/a");
  await page.pass(1);
  await page.push("/b");
  const times = page.ids.map((id) => parseInt(id.replace("-", ""), 16));
  expect(times).toEqual([NOW.getTime(), NOW.getTime() + 1000]);
});
