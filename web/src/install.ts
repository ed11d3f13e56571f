import { resume, send } from "./delivery.js";
import type { Footfall, View, ViewAnswer } from "./footfall.js";
import { look, track, watch } from "./pages.js";
import { openQueue, optOut } from "./queue.js";

declare let footfall: Partial<Footfall>;

/** Give `window.footfall`, which holds the settings, its methods, and send what earlier pages have left. */
export const install = (): void => {
  openQueue();
  resume();
  Object.assign(footfall, {
    track,
    send,
    optOut,
    view: (view: View) =>
      send("api/track/view", {
        entity_type: view.entityType,
        entity_id: view.entityId,
        view_type: view.viewType,
        view_source: view.viewSource,
      }) as Promise<ViewAnswer | null>,
    start() {
      footfall.start = look;
      watch();
    },
  } satisfies Partial<Footfall>);
};
