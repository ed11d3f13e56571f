import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { load, mount, paths, settle } from "./page.js";

const served = readFileSync(`${import.meta.dirname}/../../../api/static/footfall.js`, "utf8");

function loadScript(attributes: Record<string, string> = {}): void {
  const script = document.createElement("script");
  script.setAttribute("src", "/footfall.js");
  for (const [name, value] of Object.entries(attributes)) script.setAttribute(name, value);
  Object.defineProperty(document, "currentScript", { configurable: true, value: script });
  new Function(served)();
}

describe.each([
  ["with a router", "/one"],
  ["without a router", undefined],
])("the script and the hook %s", (_, router) => {
  test("count once when the script is first, by the location", async () => {
    const { usePageViewTracking } = await load();
    loadScript();
    await mount(() => usePageViewTracking({ ...(router && { router }) }), true);
    expect(paths()).toEqual(["/a"]);
    history.pushState(null, "", "/b");
    await settle();
    expect(paths()).toEqual(["/a", "/b"]);
  });

  test("count once when the hook is first", async () => {
    const { usePageViewTracking } = await load();
    let path = router;
    const page = await mount(() => usePageViewTracking({ ...(path && { router: path }) }), true);
    loadScript();
    await settle();
    history.pushState(null, "", "/b");
    path &&= "/two";
    await page.rerender();
    await settle();
    expect(paths()).toEqual(router ? ["/one", "/two"] : ["/a", "/b"]);
  });

  test("count once when the script is manual, by the hook", async () => {
    const { usePageViewTracking } = await load();
    loadScript({ "data-manual": "" });
    await mount(() => usePageViewTracking({ ...(router && { router }) }), true);
    expect(paths()).toEqual([router ?? "/a"]);
  });
});

test("the script counts pages by itself after the other hook", async () => {
  const { useViews } = await load();
  const views = await mount(() => useViews({ contentId: "7", contentType: "course" }));
  views.result.incrementView();
  await settle();
  expect(paths()).toEqual([]);
  loadScript();
  await settle();
  expect(paths()).toEqual(["/a"]);
});
