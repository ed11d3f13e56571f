// The test page's bundle, once for each React: node test/chromium/build.js FOLDER

import { build } from "esbuild";

const folder = process.argv[2];
const web = new URL("../..", import.meta.url).pathname;
/** @param {string} name */
const of18 = (name) => `${web}test/react-18/node_modules/${name}`;
/** @type {import("esbuild").BuildOptions} */
const common = {
  entryPoints: ["test/chromium/app.ts"],
  absWorkingDir: web,
  bundle: true,
  format: "iife",
  target: "es2021",
  define: { "process.env.NODE_ENV": '"development"' }, // Strict Mode does nothing in production
};

await build({ ...common, outfile: `${folder}/react-19.js` });
await build({
  ...common,
  alias: { react: of18("react"), "react-dom": of18("react-dom") },
  outfile: `${folder}/react-18.js`,
});
