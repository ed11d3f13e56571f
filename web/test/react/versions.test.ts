import { version } from "react";
import { version as domVersion } from "react-dom";
import { expect, inject, test } from "vitest";

test("the hooks are tested with the React that the project is named after", () => {
  const major = inject("react");
  expect(version).toMatch(major);
  expect(domVersion).toMatch(major);
});
