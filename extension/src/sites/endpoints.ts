// What the page-world script listens to: the addresses alone, so that no reader comes along.

import { endpoints as chatgpt } from "./chatgpt";
import { endpoints as claude } from "./claude";
import { endpoints as gemini } from "./gemini";
import { endpoints as grok } from "./grok";
import type { Endpoint } from "./site";
import { endpoints as xgrok } from "./xgrok";

export const ENDPOINTS: readonly Endpoint[] = [...chatgpt, ...claude, ...gemini, ...grok, ...xgrok];
