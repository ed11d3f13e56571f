/** Call `then` as soon as somebody sees the page: it may be in a background tab, or loaded ahead. */
export const whenVisible = (then: () => void): void => {
  if (document.hidden) addEventListener("visibilitychange", then, { once: true });
  else then();
};
