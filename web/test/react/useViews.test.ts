import { useEffect } from "react";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Dedupe } from "../../react/src/index.js";
import {
  type Hooks,
  hide,
  increments,
  load,
  mount,
  reads,
  sent,
  server,
  settle,
  turnVisible,
} from "./page.js";

const course = { contentId: "7", contentType: "course" } as const;
const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** What a page of content does. */
function useContent({ useViews }: Hooks, { contentId = "7", dedupe = "page" as Dedupe } = {}) {
  const views = useViews({ ...course, contentId, dedupe });
  const { incrementView } = views;
  useEffect(() => incrementView(), [incrementView]);
  return views;
}

afterEach(() => void vi.useRealTimers());

describe.each([
  ["Strict Mode", true],
  ["normal mode", false],
])("in %s", (_, strict) => {
  test("the count is read once and shown", async () => {
    const { useViews } = await load();
    const { renders, result } = await mount(() => useViews(course), strict);
    expect(renders[0]).toMatchObject({ viewCount: 0, isLoading: true });
    expect(result).toMatchObject({ viewCount: 7, isLoading: false });
    expect(sent).toHaveLength(1);
    const url = new URL(sent[0]!.url);
    expect(url.pathname).toBe("/api/views");
    expect(Object.fromEntries(url.searchParams)).toEqual(course);
    expect(sent[0]!.options).toEqual({ credentials: "omit" });
  });

  test("a view is counted once, and the count rises", async () => {
    const hooks = await load();
    const page = await mount(() => useContent(hooks), strict);
    page.result.incrementView();
    await page.rerender();
    await settle();
    expect(increments().map(({ body }) => body)).toEqual([{ ...course, id: expect.stringMatching(UUID7) }]);
    expect(page.result).toMatchObject({ viewCount: 8, isLoading: false });
  });

  test("several components of a content count once and show the same", async () => {
    const hooks = await load();
    const { result } = await mount(() => [useContent(hooks), useContent(hooks)], strict);
    const other = await mount(() => useContent(hooks), strict);
    expect(increments()).toHaveLength(1);
    expect(reads()).toHaveLength(1);
    expect([...result, other.result].map(({ viewCount }) => viewCount)).toEqual([8, 8, 8]);
  });

  test("mounting again counts nothing again, and reads again", async () => {
    const hooks = await load();
    const page = await mount(() => useContent(hooks), strict);
    await page.unmount();
    const before = reads().length;
    server.count = 20;
    const again = await mount(() => useContent(hooks), strict);
    expect(increments()).toHaveLength(1);
    expect(again.renders[0]).toMatchObject({ viewCount: 8, isLoading: false });
    expect(again.result.viewCount).toBe(20);
    expect(reads()).toHaveLength(before + 1);
  });

  test("another content is counted and shown for itself", async () => {
    const hooks = await load();
    let contentId = "7";
    const page = await mount(() => useContent(hooks, { contentId }), strict);
    const seven = page.result.incrementView;
    server.count = 100;
    contentId = "8";
    await page.rerender();
    expect(page.result.viewCount).toBe(101);
    expect(page.result.incrementView).not.toBe(seven);
    expect(increments().map(({ body }) => body.contentId)).toEqual(["7", "8"]);
    contentId = "7";
    await page.rerender();
    expect(increments()).toHaveLength(2);
  });

  test("incrementView is the same function in every render", async () => {
    const { useViews } = await load();
    const page = await mount(() => useViews({ ...course }), strict);
    const first = page.result.incrementView;
    await page.rerender();
    page.result.incrementView();
    await settle();
    expect(page.result.viewCount).toBe(8);
    expect(page.result.incrementView).toBe(first);
  });
});

test("the same content id of another type is another content", async () => {
  const { useViews } = await load();
  const page = await mount(() => [useViews(course), useViews({ ...course, contentType: "resource" })]);
  for (const { incrementView } of page.result) incrementView();
  await settle();
  expect(increments().map(({ body }) => body.contentType)).toEqual(["course", "resource"]);
});

describe("the count never falls", () => {
  test("by an answer that is older", async () => {
    const { useViews } = await load();
    let answerRead!: (response: Response) => void;
    server.answer = ({ method }) =>
      method === "GET" ? new Promise((resolve) => (answerRead = resolve)) : Response.json({ count: 8 });
    const page = await mount(() => useViews(course));
    page.result.incrementView();
    await settle();
    expect(page.result).toMatchObject({ viewCount: 8, isLoading: false });
    answerRead(Response.json({ count: 7 }));
    await settle();
    expect(page.result.viewCount).toBe(8);
  });

  test("by an error", async () => {
    const { useViews } = await load();
    const page = await mount(() => useViews(course));
    server.answer = () => new Response("{}", { status: 400 });
    page.result.incrementView();
    await settle();
    await page.unmount();
    const again = await mount(() => useViews(course));
    expect(again.result).toMatchObject({ viewCount: 7, isLoading: false });
  });
});

describe.each([
  ["no network", () => Promise.reject(new TypeError("Failed to fetch"))],
  ["503", () => Response.json({ count: 3 }, { status: 503 })],
  ["no JSON", () => new Response("<p>Hello", { status: 200 })],
  ["no count", () => Response.json({})],
])("when the answer is %s", (_, answer) => {
  test("the count is 0 and not loading", async () => {
    const { useViews } = await load();
    server.answer = answer;
    const page = await mount(() => useViews(course));
    expect(page.result).toMatchObject({ viewCount: 0, isLoading: false });
  });
});

test("a view that cannot be sent leaves the count to be read", async () => {
  const hooks = await load();
  let answerRead!: (response: Response) => void;
  server.answer = ({ method }) =>
    method === "GET" ? new Promise((resolve) => (answerRead = resolve)) : new Response("{}", { status: 503 });
  const page = await mount(() => useContent(hooks));
  expect(page.result).toMatchObject({ viewCount: 0, isLoading: true });
  answerRead(Response.json({ count: 7 }));
  await settle();
  expect(page.result).toMatchObject({ viewCount: 7, isLoading: false });
});

test("a view that cannot be sent is sent again with the same id", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const hooks = await load();
  server.answer = () => new Response("{}", { status: 503 });
  const page = await mount(() => useContent(hooks));
  server.answer = undefined;
  await vi.advanceTimersByTimeAsync(10_000);
  expect(increments()).toHaveLength(2);
  expect(increments()[0]!.body).toEqual(increments()[1]!.body);
  await page.unmount();
});

test("a component that is gone is not told", async () => {
  const { useViews } = await load();
  let answerRead!: (response: Response) => void;
  server.answer = () => new Promise((resolve) => (answerRead = resolve));
  const error = vi.spyOn(console, "error");
  const page = await mount(() => useViews(course));
  await page.unmount();
  const rendered = page.renders.length;
  answerRead(Response.json({ count: 7 }));
  await settle();
  expect(page.renders).toHaveLength(rendered);
  expect(error).not.toHaveBeenCalled();
});

describe("dedupe", () => {
  /** Load the page and count a view, `times` times. */
  async function visit(dedupe: Dedupe, times = 1): Promise<number> {
    for (let i = 0; i < times; i++) {
      const hooks = await load();
      await (await mount(() => useContent(hooks, { dedupe }))).unmount();
    }
    return increments().length;
  }

  test("page: each load of the page counts", async () => {
    expect(await visit("page", 3)).toBe(3);
    expect({ ...localStorage, ...sessionStorage }).toEqual({});
  });

  test("session: once until the session ends", async () => {
    expect(await visit("session", 3)).toBe(1);
    sessionStorage.clear();
    expect(await visit("session")).toBe(2);
  });

  test("day: once until the day ends, and nothing is kept of earlier days", async () => {
    vi.useFakeTimers({ now: new Date(2026, 10, 20, 23, 59), toFake: ["Date"] });
    expect(await visit("day", 3)).toBe(1);
    sessionStorage.clear();
    expect(await visit("day")).toBe(1);
    vi.setSystemTime(new Date(2026, 10, 21, 0, 1));
    expect(await visit("day", 2)).toBe(2);
    expect(localStorage["footfall-views"].match(/course:7/g)).toHaveLength(1);
  });

  test("counts every content", async () => {
    const hooks = await load();
    await mount(() => ["7", "8"].map((contentId) => useContent(hooks, { contentId, dedupe: "day" })));
    expect(increments()).toHaveLength(2);
    expect(await visit("day")).toBe(2);
  });

  test.each(["null", "{}", "[]", "no JSON", `{"day":"","names":7}`])(
    "survives what is stored there: %s",
    async (text) => {
      sessionStorage["footfall-views"] = text;
      expect(await visit("session")).toBe(1);
    },
  );

  test("without storage, it is once a page", async () => {
    const refused = {
      get: () => {
        throw new Error("refused");
      },
    };
    for (const name of ["localStorage", "sessionStorage"]) vi.stubGlobal(name, undefined);
    for (const name of ["localStorage", "sessionStorage"])
      Object.defineProperty(globalThis, name, { configurable: true, ...refused });
    try {
      const hooks = await load();
      const page = await mount(() => useContent(hooks, { dedupe: "day" }));
      page.result.incrementView();
      await settle();
      expect(increments()).toHaveLength(1);
    } finally {
      vi.unstubAllGlobals();
    }
  });
});

test("a page that nobody sees is not counted, nor kept as counted", async () => {
  hide(true);
  const hooks = await load();
  const page = await mount(() => useContent(hooks, { dedupe: "session" }));
  expect(page.result.viewCount).toBe(7);
  expect(increments()).toEqual([]);
  expect({ ...sessionStorage }).toEqual({});
  await turnVisible();
  expect(increments()).toHaveLength(1);
});

test("who has opted out is not counted, and nothing is kept", async () => {
  localStorage["footfall-off"] = "1";
  const hooks = await load();
  const page = await mount(() => useContent(hooks, { dedupe: "day" }));
  expect(page.result.viewCount).toBe(7);
  expect(increments()).toEqual([]);
  expect({ ...localStorage }).toEqual({ "footfall-off": "1" });
});

test("the signed-in user's token goes with the view", async () => {
  const hooks = await load();
  hooks.configure({ token: async () => "secret" });
  await mount(() => useContent(hooks));
  expect(increments()[0]!.options.headers).toEqual({ Authorization: "Bearer secret" });
});
