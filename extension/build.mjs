// `node build.mjs` makes dist/chrome; `--tests` the bundles that `node --test` runs.
import { cp, mkdir, readdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const common = { bundle: true, charset: "utf8", legalComments: "none", logLevel: "warning" };

async function buildExtension() {
  const out = "dist/chrome";
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  await build({
    ...common,
    entryPoints: {
      tap: "src/page/tap.ts",
      content: "src/content/main.ts",
      worker: "src/worker/main.ts",
      popup: "src/ui/popup.ts",
      panel: "src/ui/panel.ts",
      welcome: "src/ui/welcome.ts",
    },
    outdir: out,
    // Each script is whole: an import would run page-world code too late.
    format: "iife",
    target: "chrome116",
    minifySyntax: true,
    minifyWhitespace: true,
  });
  await cp("manifest.json", `${out}/manifest.json`);
  await cp("icons", `${out}/icons`, { recursive: true });
  for (const name of await readdir("src/ui")) {
    if (/\.(html|css)$/.test(name)) await cp(`src/ui/${name}`, `${out}/${name}`);
  }
}

async function buildTests() {
  await rm("dist/tests", { recursive: true, force: true });
  const tests = (await readdir("test")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: tests.map((name) => `test/${name}`),
    outdir: "dist/tests",
    outExtension: { ".js": ".mjs" },
    format: "esm",
    platform: "node",
    external: ["esbuild"],
    target: "node20",
    sourcemap: "inline",
  });
  await build({
    ...common,
    entryPoints: { editors: "test/editors.ts" },
    outdir: "dist/tests",
    format: "iife",
    target: "chrome116",
  });
}

await (process.argv.includes("--tests") ? buildTests() : buildExtension());
