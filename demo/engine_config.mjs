// Has Miniflare configure workerd to run the workflows of scenarios.mjs, with the REST API of its
// local explorer. Miniflare hands the configuration to the program MINIFLARE_WORKERD_PATH, which is
// to keep it: see build_engine.py.
import { readFileSync } from "node:fs";
import { convertV4MiniflareOptions, Miniflare, NoOpLog } from "miniflare";

const engine = new Miniflare(
  convertV4MiniflareOptions({
    name: "sample-workflows",
    host: "127.0.0.1",
    cf: false, // otherwise it asks the internet which data centre it would be in
    log: new NoOpLog(), // which would say that nothing was started
    unsafeLocalExplorer: true, // the REST API; wrangler has it on by default, miniflare off
    modules: [
      {
        type: "ESModule",
        path: "scenarios.mjs",
        contents: readFileSync(new URL("./scenarios.mjs", import.meta.url), "utf8"),
      },
    ],
    compatibilityDate: "2026-07-01",
    workflows: {
      ORDERS: { name: "orders", className: "Orders" },
      BILLING: { name: "billing", className: "Billing" },
    },
  }),
);
await engine.ready.catch(() => {}); // what keeps the configuration doesn't serve
await engine.dispose().catch(() => {});
