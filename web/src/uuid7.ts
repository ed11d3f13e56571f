/** The first 48 bits of a UUIDv7, `milliseconds` since 1970, as they are written: 8 digits, a dash, 4 digits. */
export const timePart = (milliseconds: number): string => milliseconds.toString(16).replace(/.{7}/, "0$&-"); // 11 digits until the year 2527

/** A new UUIDv7 (RFC 9562, 5.7) for this moment. */
export const uuid7 = (): string =>
  timePart(Date.now()) +
  "-7" +
  // Of a UUIDv4, what follows the version. There are none without HTTPS: nobody gains by guessing an id, so
  // a lesser source is better than no view
  (window.crypto?.randomUUID?.().slice(15) ??
    "xxx-8xxx-xxxxxxxxxxxx".replace(/x/g, () => ((Math.random() * 16) | 0).toString(16)));
