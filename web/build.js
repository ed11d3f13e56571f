import { writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { hooks, script } from "./bundle.js";

const text = await script();
await writeFile(new URL("../api/static/footfall.js", import.meta.url), text);
await hooks();
console.log(`footfall.js: ${text.length} bytes, ${gzipSync(text, { level: 9 }).length} gzipped`);
