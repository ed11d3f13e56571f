import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { timePart, uuid7 } from "../../src/uuid7.js";
import { UUID7 } from "./page.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe.each([
  ["with HTTPS", globalThis.crypto],
  ["without HTTPS", { ...globalThis.crypto, randomUUID: undefined }],
  ["without crypto", undefined],
])("%s", (_, crypto) => {
  beforeEach(() => void vi.stubGlobal("window", { crypto }));

  test("an id is a UUIDv7 of its millisecond", () => {
    vi.setSystemTime(0x0123_4567_89ab);
    expect(uuid7()).toMatch(UUID7);
    expect(uuid7()).toMatch(/^01234567-89ab-7/);
  });

  test("no two are the same, and each digit takes every value", () => {
    const ids = Array.from({ length: 2000 }, uuid7);
    expect(new Set(ids).size).toBe(2000);
    const random = ids.map((id) =>
      id
        .replace(/-/g, "")
        .slice(13)
        .replace(/^(...)[89ab]/, "$1"),
    );
    for (let place = 0; place < 18; place++)
      expect(new Set(random.map((digits) => digits[place])).size).toBe(16);
  });

  test("ids sort by time", () => {
    const times = [0x199_0000_0000, 0x199_ffff_ffff, 0x19a_0000_0000, 0xfff_ffff_ffff];
    const ids = times.map((time) => {
      vi.setSystemTime(time);
      return uuid7();
    });
    expect([...ids].sort()).toEqual(ids);
    expect(times.map(timePart).every((part, i) => ids[i]!.startsWith(part))).toBe(true);
  });
});
