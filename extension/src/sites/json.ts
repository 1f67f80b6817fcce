// Careful reading of JSON that somebody else may change any day.

export type Step = string | number;

export function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Follow `steps` into `value`; undefined wherever the way ends. */
export function at(value: unknown, ...steps: Step[]): unknown {
  for (const step of steps) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) {
      return undefined;
    }
    value = (value as Record<Step, unknown>)[step];
  }
  return value;
}

export function textAt(value: unknown, ...steps: Step[]): string | undefined {
  const found = at(value, ...steps);
  return typeof found === "string" ? found : undefined;
}

/** Like textAt, but an empty text counts as none: for ids and titles. */
export function nameAt(value: unknown, ...steps: Step[]): string | undefined {
  return textAt(value, ...steps) || undefined;
}

export function listAt(value: unknown, ...steps: Step[]): unknown[] {
  const found = at(value, ...steps);
  return Array.isArray(found) ? found : [];
}
