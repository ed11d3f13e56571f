// What the sources become: the script as a text, the hooks as a package's files.

import { build } from "esbuild";
import { minify } from "terser";

/** What `/footfall.js` serves. */
export async function script() {
  const bundled = await build({
    entryPoints: ["src/script.ts"],
    absWorkingDir: import.meta.dirname,
    bundle: true,
    format: "iife",
    target: "es2021",
    minifySyntax: true,
    tsconfigRaw: {},
    write: false,
  });
  const text = bundled.outputFiles.map((file) => file.text).join();
  // 60 bytes less than by esbuild's own minifier
  const { code } = await minify(text, {
    ecma: 2020,
    toplevel: true,
    compress: { passes: 4 },
    format: { preamble: "// Footfall, MIT" },
  });
  return code + "\n";
}

/** Write the module of the React hooks. Their types are written by tsc. */
export async function hooks() {
  await build({
    entryPoints: ["react/src/index.ts"],
    absWorkingDir: import.meta.dirname,
    outfile: "react/dist/index.js",
    bundle: true,
    format: "esm",
    target: "es2021",
    external: ["react"],
    banner: { js: '"use client";' }, // for bundlers that also build for servers
  });
}
