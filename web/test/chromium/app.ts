// A page with both hooks on it, in Strict Mode: two components show one course, and links navigate.

import { createElement as h, StrictMode, useEffect, useState, version } from "react";
import { createRoot } from "react-dom/client";
import { usePageViewTracking, useViews } from "../../react/src/index.js";

const contentId = new URLSearchParams(location.search).get("course")!;

function Course() {
  const { viewCount, incrementView, isLoading } = useViews({ contentId, contentType: "course" });
  useEffect(incrementView, [incrementView]);
  return h("p", { className: "course" }, isLoading ? "…" : `${viewCount} views`);
}

function App() {
  const [isShown, show] = useState(true);
  usePageViewTracking();
  const go = (page: string) => () => history.pushState(null, "", new URL(page, location.href));
  return h(
    "main",
    null,
    h("h1", null, version),
    isShown && h("div", null, h(Course), h(Course)),
    h("button", { id: "go", onClick: go("b?x=1") }, "next"),
    h("button", { id: "again", onClick: go("b?x=2") }, "the same"),
    h("button", { id: "toggle", onClick: () => show(!isShown) }, "toggle"),
  );
}

const root = document.body.appendChild(document.createElement("div"));
createRoot(root).render(h(StrictMode, null, h(App)));
