// A page that loads the script: a document of its own each time, a server that answers as it is told, and
// time that stands still until it is moved.

import { JSDOM } from "jsdom";
import { afterEach, beforeAll, beforeEach, vi } from "vitest";
import { script } from "../../bundle.js";
import type { Footfall } from "../../src/footfall.js";

export const SITE = "https://site.example";
export const NOW = new Date("2026-11-20T12:00:00.000Z");
export const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** A request that the page has made. */
export interface Sent {
  url: string;
  options: RequestInit & { headers: Record<string, string> };
  body: Record<string, string>;
}

export interface Circumstances {
  /** Attributes of the script's element. */
  attributes?: Record<string, string>;
  /** Where the script comes from; null if it has no element. */
  src?: string | null;
  referrer?: string;
  /** What localStorage holds already. */
  stored?: Record<string, string>;
  hidden?: boolean;
  /** What is done to the window before the script runs. */
  before?: (window: PageWindow) => void;
  /** How the server answers. */
  answer?: Answer;
}

export type PageWindow = JSDOM["window"] & { footfall: Footfall };
type Answer = (sent: Sent) => Response | Promise<Response>;

let code: string;

beforeAll(async () => {
  code = await script();
});

beforeEach(() => {
  vi.useFakeTimers({ now: NOW, toFake: ["Date", "setTimeout", "clearTimeout"] });
});

afterEach(() => {
  vi.useRealTimers();
});

export const counted = (): Response => new Response(null, { status: 204 });
export const status = (code: number, headers = {}) => new Response("{}", { status: code, headers });
export const offline = (): Promise<Response> => Promise.reject(new TypeError("Failed to fetch"));

/** Open a page and let its first view arrive. */
export async function open(path = "/", circumstances: Circumstances = {}): Promise<Page> {
  const page = new Page(path, circumstances);
  await page.settle();
  return page;
}

export class Page {
  readonly window: PageWindow;
  readonly sent: Sent[] = [];
  readonly errors: unknown[] = [];
  answer: Answer;

  constructor(path: string, circumstances: Circumstances) {
    const { referrer = "", stored = {}, hidden = false, src = `${SITE}/footfall.js` } = circumstances;
    this.answer = circumstances.answer ?? counted;
    const dom = new JSDOM("", {
      url: SITE + path,
      ...(referrer && { referrer }),
      runScripts: "outside-only",
      pretendToBeVisual: true,
    });
    this.window = dom.window as unknown as PageWindow;
    this.window.addEventListener("error", (event) => this.errors.push(event.error));
    this.hide(hidden);
    Object.assign(this.window.localStorage, stored);
    Object.assign(this.window, {
      Date,
      setTimeout: (...of: Parameters<typeof setTimeout>) => setTimeout(...of),
    });
    this.window.fetch = ((url: string | URL, options: Sent["options"]) => {
      const sent = { url: String(url), options, body: JSON.parse(String(options.body)) };
      this.sent.push(sent);
      return this.answer(sent);
    }) as typeof fetch;
    circumstances.before?.(this.window);
    this.load(src, circumstances.attributes);
  }

  get footfall(): Footfall {
    return this.window.footfall;
  }

  /** Run the script, as if by an element of its own. */
  load(src: string | null, attributes: Record<string, string> = {}): void {
    const { document } = this.window;
    const element = document.createElement("script");
    for (const [name, value] of Object.entries({ src: src ?? "", ...attributes }))
      element.setAttribute(name, value);
    const value = src === null ? null : element;
    Object.defineProperty(document, "currentScript", { configurable: true, value });
    this.window.eval(code);
  }

  /** The paths of the page views that were sent. */
  get paths(): string[] {
    return this.sent.filter(({ url }) => url.endsWith("/api/track/page-view")).map(({ body }) => body.path!);
  }

  get ids(): string[] {
    return this.sent.map(({ body }) => body.id!);
  }

  /** What localStorage holds of views that are not answered yet. */
  get queued(): string[] {
    return Object.keys(this.window.localStorage).filter((key) => key.startsWith("footfall."));
  }

  get stored(): Record<string, string> {
    return { ...(this.window.localStorage as unknown as Record<string, string>) };
  }

  /** Let everything happen that waits for no time to pass. */
  settle(): Promise<unknown> {
    return this.pass(0);
  }

  async pass(seconds: number): Promise<unknown> {
    return vi.advanceTimersByTimeAsync(seconds * 1000);
  }

  async push(path: string): Promise<void> {
    this.window.history.pushState(null, "", path);
    await this.settle();
  }

  async replace(path: string): Promise<void> {
    this.window.history.replaceState(null, "", path);
    await this.settle();
  }

  hide(hidden = true): void {
    for (const [name, value] of Object.entries({ hidden, visibilityState: hidden ? "hidden" : "visible" }))
      Object.defineProperty(this.window.document, name, { configurable: true, value });
  }

  /** Change whether somebody sees the page, and say so, as browsers do. */
  async turn(to: "visible" | "hidden"): Promise<void> {
    this.hide(to === "hidden");
    this.window.document.dispatchEvent(new this.window.Event("visibilitychange", { bubbles: true }));
    await this.settle();
  }

  /** Come back from the back/forward cache. */
  async restore(): Promise<void> {
    this.window.dispatchEvent(Object.assign(new this.window.Event("pageshow"), { persisted: true }));
    await this.settle();
  }
}
