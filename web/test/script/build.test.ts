import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { script } from "../../bundle.js";

const served = await readFile(new URL("../../../api/static/footfall.js", import.meta.url), "utf8");

test("the script that is served is what the sources are", async () => {
  expect(served).toBe(await script());
});

// 1.2 KB are 1,228 bytes of `gzip -9`. The zlib in Node packs a little tighter
test("it is under 1.2 KB gzipped", () => {
  expect(gzipSync(served, { level: 9 }).length).toBeLessThanOrEqual(1220);
});

test("it says what it is in one line, and is one function", () => {
  expect(served).toMatch(/^\/\/ Footfall, MIT\n\(\(\)=>\{[^]*\}\)\(\);\n$/);
});
