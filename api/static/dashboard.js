// What the dashboard gains by scripts: names of countries, tooltips, search while typing, and what happens now.
// Everything is there without them too.

const EVERY_MS = 10_000;

const countries = new Intl.DisplayNames([...navigator.languages, "en"], { type: "region", fallback: "code" });
for (const element of document.querySelectorAll("[data-country]")) {
  element.textContent = countries.of(element.dataset.country);
}

// A page that is asked for dims this one until it is there
for (const link of document.querySelectorAll(".switch a, .bars a, .brand, .back a")) {
  link.addEventListener("click", (event) => {
    if (!event.metaKey && !event.ctrlKey && !event.shiftKey) document.documentElement.classList.add("loading");
  });
}
addEventListener("pageshow", (event) => {
  document.documentElement.classList.remove("loading");
  if (event.persisted) location.reload(); // it may be somebody else's browser by now
});

// Tooltips: a column's title, shown at once and where it belongs
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);

function showTip(column) {
  hideTip();
  const place = column.querySelector(".hit").getBoundingClientRect();
  column.classList.add("shown");
  tip.textContent = column.tip;
  tip.hidden = false;
  const left = place.left + place.width / 2 - tip.offsetWidth / 2;
  const furthest = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(left, furthest)) + scrollX}px`;
  tip.style.top = `${Math.max(8, place.top - tip.offsetHeight - 6) + scrollY}px`;
}

function hideTip() {
  tip.hidden = true;
  document.querySelector(".column.shown")?.classList.remove("shown");
}

for (const column of document.querySelectorAll(".column")) {
  const title = column.querySelector("title");
  column.tip = title.textContent;
  title.remove(); // else the browser shows it as well, and later
  column.addEventListener("pointerenter", () => showTip(column));
  column.addEventListener("pointerleave", hideTip);
}
addEventListener("keydown", (event) => event.key === "Escape" && hideTip());

// Search: what is listed is filtered at once; Enter asks the server
const search = document.querySelector("[data-filter]");
search?.addEventListener("input", () => {
  const rows = [...document.querySelectorAll(`#${search.dataset.filter} tbody tr`)];
  const wanted = search.value.trim().toLowerCase();
  for (const row of rows) row.hidden = !row.querySelector("th").textContent.toLowerCase().includes(wanted);
  const found = rows.filter((row) => !row.hidden).length;
  document.querySelector("[data-found]").textContent = wanted ? `${found} of ${rows.length} shown` : "";
});

// Now: asked again and again, but only while somebody may see it
const live = document.querySelector("[data-live]");
if (live) {
  let timer;
  const number = new Intl.NumberFormat("en");
  const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: live.dataset.zone });
  const part = (name) => live.querySelector(`[data-${name}]`);

  function trouble(text) {
    live.classList.toggle("stale", Boolean(text));
    part("trouble").hidden = !text;
    if (part("trouble").textContent !== text) part("trouble").textContent = text;
  }

  function drawMinutes(minutes) {
    const columns = [...live.querySelectorAll(".column")];
    const height = Number(live.querySelector(".plot").getAttribute("height"));
    const most = Math.max(1, ...minutes.map(({ views }) => views));
    const rows = live.querySelectorAll("tbody tr");
    minutes.forEach(({ minute, views }, index) => {
      const bar = columns[index].querySelector(".bar");
      const tall = views && Math.max((height * views) / most, 2);
      bar.setAttribute("y", height - tall);
      bar.setAttribute("height", tall);
      const name = time.format(new Date(minute));
      columns[index].tip = `${name}: ${number.format(views)}`;
      const row = rows[minutes.length - 1 - index];
      row.cells[0].textContent = name;
      row.cells[1].textContent = number.format(views);
    });
  }

  function drawPages(pages) {
    const shown = Object.entries(pages).slice(0, 5).map(([path, views]) => {
      const item = document.createElement("li");
      const name = document.createElement(path.startsWith("/") ? "a" : "span");
      name.textContent = path;
      if (path.startsWith("/")) {
        const url = new URL(live.dataset.page, location.href);
        url.searchParams.set("path", path);
        name.href = url;
      }
      const count = document.createElement("span");
      count.className = "number";
      count.textContent = number.format(views);
      item.append(name, count);
      return item;
    });
    // what has the focus stays, until the next time
    if (!part("pages").contains(document.activeElement)) part("pages").replaceChildren(...shown);
    part("nobody").hidden = shown.length > 0;
  }

  async function look() {
    clearTimeout(timer);
    try {
      const answer = await fetch(live.dataset.live, { headers: { Accept: "application/json" } });
      if (answer.status === 401 || answer.status === 403) return trouble("Your session has ended. Reload to log in.");
      if (!answer.ok) throw new Error(answer.status);
      const now = await answer.json();
      part("now").textContent = number.format(now.current_visitors);
      drawMinutes(now.views_by_minute);
      drawPages(now.top_pages);
      trouble("");
    } catch {
      trouble("No answer at the moment; trying again.");
    }
    if (document.visibilityState === "visible") timer = setTimeout(look, EVERY_MS);
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.visibilityState === "visible") look();
  });
  timer = setTimeout(look, EVERY_MS);
}
