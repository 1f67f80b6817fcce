// Every site, in the order in which they are shown. A new site is one file and one line here,
// one in `endpoints.ts`, and its address in manifest.json.

import { chatgpt } from "./chatgpt";
import { claude } from "./claude";
import { gemini } from "./gemini";
import { grok } from "./grok";
import type { Site } from "./site";
import { xgrok } from "./xgrok";

export const SITES: readonly Site[] = [chatgpt, claude, gemini, grok, xgrok];

export function siteOf(page: URL): Site | undefined {
  return SITES.find((site) => site.matches.includes(`${page.origin}/*`));
}
