import { defineConfig } from "vitest/config";

const path = (of: string) => new URL(of, import.meta.url).pathname;
const hooks = { environment: "jsdom", include: ["test/react/*.test.ts"] };

export default defineConfig({
  test: {
    projects: [
      { test: { name: "script", include: ["test/script/*.test.ts"] } },
      { test: { ...hooks, name: "react-19", provide: { react: "19." } } },
      {
        test: { ...hooks, name: "react-18", provide: { react: "18." } },
        resolve: {
          alias: {
            react: path("test/react-18/node_modules/react"),
            "react-dom": path("test/react-18/node_modules/react-dom"),
          },
        },
      },
    ],
  },
});

declare module "vitest" {
  interface ProvidedContext {
    react: string;
  }
}
