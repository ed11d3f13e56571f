// What a site of its own would do: routes in the browser, and tells of what is viewed on its pages.
"use strict";

const EVERY_MS = 1000;

const byId = (id) => document.getElementById(id);
const isSignedIn = () => byId("signed-in")?.checked ?? false;

async function token() {
  if (!isSignedIn()) return undefined;
  const answer = await fetch("/demo/token");
  return (await answer.json()).token;
}

async function view(viewType) {
  const { type: entityType, id: entityId } = byId("content").dataset;
  const answer = await footfall.view({ entityType, entityId, viewType });
  const outcome = byId("outcome");
  outcome.hidden = false;
  outcome.textContent = !answer
    ? "Not counted: a book's views need a signed-in reader."
    : answer.counted
      ? `Counted: view ${answer.view_count} of this ${entityType}.`
      : `No new view of this ${entityType} (${answer.outcome}); it has ${answer.view_count}.`;
  const badge = byId("badge");
  if (badge && answer) badge.src = `${badge.src.split("&now=")[0]}&now=${answer.view_count}`; // past the cache
}

function arrived() {
  for (const link of document.querySelectorAll(".demo-nav a")) {
    link.toggleAttribute("aria-current", link.pathname === location.pathname);
  }
  const type = byId("content")?.dataset.type;
  if (type && type !== "book") void view();
}

async function show(path) {
  const answer = await fetch(path);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  byId("main").replaceWith(next.getElementById("main"));
  document.title = next.title;
  byId("main").focus();
  arrived();
}

async function count() {
  if (document.visibilityState === "visible") {
    try {
      const answer = await fetch("/demo/counts");
      if (answer.ok) table(await answer.json());
    } catch {
      // the instance is away; the next time tells
    }
  }
  setTimeout(count, EVERY_MS);
}

function table(counts) {
  const rows = Object.entries(counts).map(([name, views]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    const cell = document.createElement("td");
    head.scope = "row";
    head.textContent = name.replace("demo-", "").replace(/^page /, "");
    cell.textContent = views.toLocaleString("en");
    row.append(head, cell);
    return row;
  });
  byId("counts").tBodies[0].replaceChildren(...rows);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-route]");
  if (link && event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    history.pushState(null, "", link.href);
    void show(link.href);
  }
  const button = event.target.closest("button[data-view]");
  if (button) void view(button.dataset.view);
});
addEventListener("popstate", () => void show(location.href));

const signedIn = byId("signed-in");
if (signedIn) {
  signedIn.checked = sessionStorage.getItem("signed-in") !== "no";
  signedIn.addEventListener("change", () => sessionStorage.setItem("signed-in", signedIn.checked ? "yes" : "no"));
}
footfall.token = token;
byId("opt-out").checked = Boolean(localStorage.getItem("footfall-off"));
byId("opt-out").addEventListener("change", (event) => footfall.optOut(event.target.checked));
arrived();
void count();
