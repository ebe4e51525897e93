// Runs Cloudflare's own Workflows engine on loopback, with the REST API of its local explorer.
//
//   node engine_server.mjs [--port=0] [--persist=DIR] [--token=T]
//
// Prints one line of JSON when it serves: `url` (the worker that creates and controls instances),
// `api` (the explorer's REST API) and `accounts_api` (the same in the hosted API's layout).
// Stops on SIGTERM, SIGINT, or when its standard input closes, so that it never outlives its parent.
import { readFileSync } from "node:fs";
import http from "node:http";
import { parseArgs } from "node:util";
import { convertV4MiniflareOptions, Log, LogLevel, Miniflare } from "miniflare";

const EXPLORER_PATH = "/cdn-cgi/local/explorer/api";
const ACCOUNTS_PATH = "/client/v4/accounts";

const { values: flags } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    persist: { type: "string" },
    token: { type: "string" },
  },
});

/** Standard output carries the ready line and nothing else. */
class StandardErrorLog extends Log {
  log(message) {
    console.error(message);
  }
}

const engine = new Miniflare(
  convertV4MiniflareOptions({
    name: "sample-workflows",
    host: "127.0.0.1",
    port: Number(flags.port),
    cf: false, // otherwise it asks the internet which data centre it would be in
    log: new StandardErrorLog(LogLevel.WARN),
    handleStructuredLogs: ({ message }) => console.error(message),
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
    ...(flags.persist && { resourcePersistencePath: flags.persist }),
  }),
);

async function stop() {
  await engine.dispose();
  process.exit(0);
}
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
process.stdin.on("end", stop).resume();

/** The envelope in which Cloudflare's API reports a failure. */
function refuse(response, status, code, message) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ success: false, errors: [{ code, message }], messages: [], result: null }));
}

/**
 * The hosted API's layout, /accounts/{any account}/workflows/…, with its check of the bearer token.
 * Only the path is rewritten: the response is the engine's own.
 */
function serveAccounts(engineUrl) {
  const agent = new http.Agent({ keepAlive: true });
  const server = http.createServer((request, response) => {
    const match = /^\/client\/v4\/accounts\/[^/?]+(\/workflows(?:[/?].*)?)$/.exec(request.url);
    if (!match) return refuse(response, 404, 7003, `Could not route to ${request.url}`);
    if (flags.token && request.headers.authorization !== `Bearer ${flags.token}`) {
      return refuse(response, 403, 10000, "Authentication error");
    }
    const headers = { ...request.headers, host: engineUrl.host }; // the engine accepts loopback names only
    delete headers.authorization;
    const forwarded = http.request(
      { agent, host: engineUrl.hostname, port: engineUrl.port, method: request.method, path: EXPLORER_PATH + match[1], headers },
      (upstream) => {
        response.writeHead(upstream.statusCode, upstream.headers);
        upstream.pipe(response);
      },
    );
    forwarded.on("error", (error) => refuse(response, 502, 0, String(error)));
    request.pipe(forwarded);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${server.address().port}${ACCOUNTS_PATH}`));
  });
}

const engineUrl = await engine.ready;
const accountsUrl = await serveAccounts(engineUrl);
console.log(
  JSON.stringify({
    url: engineUrl.origin,
    api: engineUrl.origin + EXPLORER_PATH,
    accounts_api: `${accountsUrl}/{account_id}`,
  }),
);
