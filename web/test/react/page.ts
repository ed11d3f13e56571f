// A page with the hooks on it, which have never run before, and a server that counts.

import { act, createElement, type ReactNode, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { afterEach, beforeEach, vi } from "vitest";

export interface Sent {
  method: string;
  url: string;
  options: RequestInit;
  body: Record<string, string>;
}

/** Hooks as a page has them that was just loaded. */
export type Hooks = typeof import("../../react/src/index.js");

export const sent: Sent[] = [];
export const server = {
  count: 7,
  /** Takes the place of the answers to come. */
  answer: undefined as undefined | ((sent: Sent) => Response | Promise<Response>),
};

const listeners: Parameters<typeof removeEventListener>[] = [];
const added = window.addEventListener;
const { pushState, replaceState } = history;
let unmounts: (() => void)[] = [];

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

beforeEach(() => {
  sent.length = 0;
  Object.assign(server, { count: 7, answer: undefined });
  replaceState.call(history, null, "", "/a");
  window.addEventListener = (...of: Parameters<typeof added>) => {
    listeners.push(of as never);
    added.apply(window, of);
  };
  vi.stubGlobal("fetch", vi.fn(serve));
});

afterEach(() => {
  for (const unmount of unmounts) unmount();
  unmounts = [];
  for (const listener of listeners) removeEventListener(...listener);
  Object.assign(history, { pushState, replaceState });
  localStorage.clear();
  sessionStorage.clear();
  delete window.footfall;
  hide(false);
  vi.unstubAllGlobals();
});

/** Load the page: its modules begin anew, its storage stays. */
export async function load(): Promise<Hooks> {
  vi.resetModules();
  delete window.footfall;
  return import("../../react/src/index.js");
}

export interface Mounted<Result> {
  readonly result: Result;
  readonly renders: Result[];
  rerender: () => Promise<void>;
  unmount: () => Promise<void>;
}

/** Mount a component that uses a hook. */
export async function mount<Result>(use: () => Result, strict = false): Promise<Mounted<Result>> {
  const renders: Result[] = [];
  const Component = (): ReactNode => {
    renders.push(use());
    return null;
  };
  const root = createRoot(document.createElement("div"));
  const render = () =>
    act(async () => root.render(strict ? createElement(StrictMode, null, tree()) : tree()));
  const tree = () => createElement(Component);
  const unmount = () => act(async () => root.unmount());
  unmounts.push(() => void act(() => root.unmount()));
  await render();
  return {
    get result() {
      return renders.at(-1)!;
    },
    renders,
    rerender: render,
    unmount,
  };
}

/** Let everything happen that waits for no time to pass. */
export async function settle(): Promise<void> {
  await act(async () => {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
  });
}

export function hide(hidden: boolean): void {
  Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
}

export async function turnVisible(): Promise<void> {
  hide(false);
  document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
  await settle();
}

/** The paths of the page views that were sent. */
export function paths(): string[] {
  return sent.filter(({ url }) => url.endsWith("/api/track/page-view")).map(({ body }) => body.path!);
}

export function increments(): Sent[] {
  return sent.filter(({ method, url }) => method === "POST" && url.endsWith("/api/views"));
}

export function reads(): Sent[] {
  return sent.filter(({ method }) => method === "GET");
}

async function serve(url: string | URL, options: RequestInit = {}): Promise<Response> {
  const { method = "GET", body } = options;
  const one = { method, url: String(url), options, body: body ? JSON.parse(String(body)) : {} };
  sent.push(one);
  if (server.answer) return server.answer(one);
  if (method === "GET") return Response.json({ count: server.count });
  if (one.url.endsWith("/api/views")) return Response.json({ success: true, count: ++server.count });
  return new Response(null, { status: 204 });
}
