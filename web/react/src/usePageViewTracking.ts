import { useEffect } from "react";
import { footfall, isScriptCounting } from "./page.js";

/**
 * What a router's own hook returns: React Router's `useLocation()`, Next.js' `usePathname()` (app router) or
 * `useRouter()` (pages router).
 */
export type Router = string | null | { pathname?: string | null; asPath?: string; isReady?: boolean };

let shown: string | undefined;

/**
 * Count every page that is shown, each once. Call it in one component that is always mounted.
 *
 * With `router`, pages are the router's paths; without, those of the location. Where the script counts by
 * itself, it goes on to do so, and this adds nothing. Queries and fragments are no part of a path.
 */
export function usePageViewTracking({ router }: { router?: Router } = {}): void {
  const hasRouter = router !== undefined;
  const path = pathOf(router);
  useEffect(() => {
    if (hasRouter && path === undefined) return; // not yet known
    const page = footfall();
    if (hasRouter && !isScriptCounting()) {
      shown = path;
      page.path = () => shown!;
    }
    page.start();
  }, [hasRouter, path]);
}

function pathOf(router: Router | undefined): string | undefined {
  if (typeof router === "string") return withoutQuery(router);
  // Before the pages router is ready, it may say /post/[id]. Its `pathname` always does
  if (!router || router.isReady === false) return undefined;
  return withoutQuery(router.asPath ?? router.pathname);
}

function withoutQuery(path: string | null | undefined): string | undefined {
  return path?.split(/[?#]/)[0];
}
