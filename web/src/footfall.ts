/** How the pages are counted. Everything here may be changed at any time; it is read when it is needed. */
export interface Settings {
  /**
   * Where Footfall is: an absolute URL. If it has a path, it ends with `/`.
   * By default where the script comes from; for the React hooks, the page's origin.
   */
  endpoint?: string;

  /** Paths that are no page views, separated by commas; `*` stands for any text: `/admin/*, *.pdf`. */
  exclude?: string;

  /** Whether the fragment is part of the path: `/app/#/books?page=2` is then the page `/app/books`. */
  hash?: true;

  /** Whether nothing is counted by itself, but what `track` is called with. */
  manual?: true;

  /**
   * The signed-in user's token, asked for whenever a view is sent. Nothing or "": nobody is signed in.
   * While it cannot be had (it throws or rejects), views wait.
   */
  token?: () => Token | Promise<Token>;

  /** The path of the page that is shown. By default it is taken from the location. */
  path?: () => string;
}

type Token = string | null | undefined;

/** A view of something that is not a page. */
export interface View {
  entityType: string;
  entityId: string;
  viewType?: string;
  viewSource?: "web" | "api" | "widget" | "player";
}

export interface ViewAnswer {
  counted: boolean;
  outcome: "counted" | "own" | "repeat" | "bot";
  first_view: boolean;
  view_count: number;
}

/**
 * What the script puts on the page as `window.footfall`. A page may put settings there before.
 *
 * Nothing here throws or rejects, whatever the network and the browser do.
 */
export interface Footfall extends Settings {
  /** Count a view of the page at `path`, unless it is excluded. */
  track(path: string): Promise<void>;

  /** Count a view of something else. The answer; null if there is none, or none yet. */
  view(view: View): Promise<ViewAnswer | null>;

  /**
   * Count a view by any endpoint of Footfall's, such as `api/stories/7/view`, with an `id` put into `body`.
   * It is sent once the page is visible, and sent again until it is answered, at most for a day.
   * The answer; null if there is none, or none yet.
   */
  send(path: string, body: object): Promise<unknown>;

  /**
   * Count nothing in this browser from now on, and forget what is not sent yet. `optOut(false)`: count again.
   * It is kept in localStorage as `footfall-off`.
   */
  optOut(isOut?: boolean): void;

  /** Count this page and every one that it is followed by. Once started, only look whether there is a new one. */
  start(): void;
}

declare global {
  interface Window {
    footfall?: Partial<Footfall>;
  }
}
