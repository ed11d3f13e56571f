// @vitest-environment node

import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { afterEach, expect, test, vi } from "vitest";
import { configure, usePageViewTracking, useViews } from "../../react/src/index.js";

afterEach(() => void vi.unstubAllGlobals());

test("on a server, nothing is counted or asked for", () => {
  const fetch = vi.fn();
  vi.stubGlobal("fetch", fetch);
  configure({ endpoint: "https://stats.example", token: () => "secret" });
  const html = renderToString(
    createElement(() => {
      usePageViewTracking({ router: "/one" });
      const { viewCount, incrementView, isLoading } = useViews({ contentId: "7", contentType: "course" });
      incrementView();
      return `${viewCount} views${isLoading ? ", loading" : ""}`;
    }),
  );
  expect(html).toBe("0 views, loading");
  expect(typeof window).toBe("undefined");
  expect(fetch).not.toHaveBeenCalled();
});
