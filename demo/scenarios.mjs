// Two workflows, `orders` and `billing`, that play the scenario with which an instance is created,
// and a small HTTP interface to create and control instances:
//
//   POST /{workflow}/{id}                       body {"scenario": …, …}: creates the instance
//   POST /{workflow}/{id}/{pause|resume|terminate|restart}
//   POST /{workflow}/{id}/event?type=approve    sends the event a `wait` is waiting for
//
// and the engine's own REST API in the hosted API's layout, with its check of the bearer token:
//
//   /client/v4/accounts/{any account}/workflows/…
import { WorkflowEntrypoint } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";

const EXPLORER_PATH = "/cdn-cgi/local/explorer/api";
const TOKEN = "local-engine";
const NO_RETRY = { retries: { limit: 0, delay: 0 } };
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const failedOnce = new Set();

function chargeOnceRestarted(step, instanceId) {
  return step.do("charge", async () => {
    if (!failedOnce.has(instanceId)) {
      failedOnce.add(instanceId);
      throw new NonRetryableError("card declined");
    }
    return "charged";
  });
}

/** By name: what an instance does. `params` are those it was created with. */
const scenarios = {
  /** Three steps, then complete. */
  async ok(step) {
    for (const name of ["fetch", "transform", "store"]) await step.do(name, async () => ({ name }));
    return { steps: 3 };
  },

  /** A step that fails twice and then succeeds; `delay` is the time between its attempts. */
  async retry(step, { delay = "1 second" }) {
    await step.do("before", async () => 1);
    const config = { retries: { limit: 3, delay, backoff: "constant" }, timeout: "30 seconds" };
    return await step.do("flaky", config, async ({ attempt }) => {
      if (attempt < 3) throw new TypeError(`flaky attempt ${attempt}`);
      return `ok after ${attempt}`;
    });
  },

  /** A step that fails until its two retries are used up. */
  async exhaust(step) {
    const config = { retries: { limit: 2, delay: "1 second", backoff: "exponential" } };
    return await step.do("always-fails", config, async () => {
      throw new Error("boom");
    });
  },

  /** A step that fails for good at its first attempt. */
  async error(step) {
    await step.do("before", async () => 1);
    return await step.do("fatal", async () => {
      throw new NonRetryableError("card declined");
    });
  },

  /** The same with a name of its own for the error, which this engine retries all the same. */
  async customerror(step) {
    const config = { retries: { limit: 3, delay: "1 second", backoff: "constant" } };
    return await step.do("fatal", config, async () => {
      throw new NonRetryableError("card declined", "CardError");
    });
  },

  /** Fails outside any step. */
  async throw(step) {
    await step.do("before", async () => 1);
    throw new Error("thrown outside a step");
  },

  /** A step fails for good, the workflow catches that and completes. */
  async caught(step) {
    try {
      await step.do("optional", NO_RETRY, async () => {
        throw new RangeError("ignored");
      });
    } catch {
      // that is the scenario
    }
    return await step.do("after", async () => "done");
  },

  /** Sleeps for `for`. */
  async sleep(step, { for: duration = "1 hour" }) {
    await step.do("before", async () => 1);
    await step.sleep("nap", duration);
    return await step.do("after", async () => "slept");
  },

  /** Waits for the event `approve`, for `timeout`. */
  async wait(step, { timeout = "1 hour" }) {
    await step.do("before", async () => 1);
    return await step.waitForEvent("approval", { type: "approve", timeout });
  },

  /** The event doesn't come in time, the workflow catches that and completes. */
  async waitcaught(step) {
    try {
      await step.waitForEvent("approval", { type: "approve", timeout: "1 second" });
    } catch {
      // that is the scenario
    }
    return await step.do("after", async () => "no approval");
  },

  /** `n` steps, each of a name of its own. */
  async many(step, { n = 200 }) {
    for (let i = 0; i < n; i++) await step.do(`s${i}`, async () => i);
    return n;
  },

  /** One step that takes `ms` milliseconds. */
  async slowstep(step, { ms = 60_000 }) {
    return await step.do("slow", { timeout: "10 minutes" }, async () => {
      await pause(ms);
      return 1;
    });
  },

  /** A step that takes longer than it may. */
  async steptimeout(step) {
    return await step.do("too-long", { ...NO_RETRY, timeout: "1 second" }, async () => {
      await pause(5_000);
    });
  },

  /** A step that failed once and is retried in an hour. */
  async stalled(step) {
    const config = { retries: { limit: 5, delay: "1 hour", backoff: "constant" } };
    return await step.do("backing-off", config, async () => {
      throw new Error("upstream 503");
    });
  },

  /** Three steps of one name, side by side. */
  async parallel(step) {
    return await Promise.all([1, 2, 3].map((i) => step.do("par", async () => i)));
  },

  /** Fails after a step that has a rollback. */
  async rollback(step) {
    await step.do("charge", async () => 1, { rollback: async () => 1 });
    throw new Error("roll me back");
  },

  /** A step with an output of `bytes`. */
  async bigout(step, { bytes = 100_000 }) {
    return await step.do("big", async () => "x".repeat(bytes));
  },

  /** A step fails beside one that takes `ms` milliseconds, which ends after the run. */
  async outlived(step, { ms = 1_000 }) {
    const slow = step.do("slow", async () => {
      await pause(ms);
      return "slow";
    });
    const fails = step.do("fails", NO_RETRY, async () => {
      throw new Error("boom");
    });
    return await Promise.all([slow, fails]);
  },

  /** Two steps side by side: until the instance is restarted, one never ends and the other fails. */
  async race(step, params, instanceId) {
    const slow = step.do("slow", async () => {
      if (!failedOnce.has(instanceId)) await pause(500_000);
      return "slow";
    });
    const charge = chargeOnceRestarted(step, instanceId);
    return await Promise.all([slow, charge]);
  },

  /** A step that fails for good until the instance is restarted, between two that succeed. */
  async recovers(step, params, instanceId) {
    await step.do("before", async () => 1);
    await chargeOnceRestarted(step, instanceId);
    return await step.do("after", async () => "charged");
  },

  /** A step whose name holds what has to be escaped in a label. */
  async longname(step) {
    return await step.do('étape n°1 / "quoted" \\ back {x="1"}', async () => 1);
  },
};

class Scenario extends WorkflowEntrypoint {
  async run(event, step) {
    const { scenario, ...params } = event.payload;
    if (!Object.hasOwn(scenarios, scenario)) throw new NonRetryableError(`unknown scenario ${scenario}`);
    return await scenarios[scenario](step, params, event.instanceId);
  }
}
export class Orders extends Scenario {}
export class Billing extends Scenario {}

async function act(instance, action, type) {
  switch (action) {
    case "pause":
      return await instance.pause();
    case "resume":
      return await instance.resume();
    case "terminate":
      return await instance.terminate();
    case "restart":
      return await instance.restart();
    case "event":
      return await instance.sendEvent({ type, payload: {} });
    default:
      throw new Error(`unknown action ${action}`);
  }
}

/** The envelope in which Cloudflare's API reports a failure. */
function refuse(status, code, message) {
  return Response.json({ success: false, errors: [{ code, message }], messages: [], result: null }, { status });
}

/** The engine's own response: only the path is rewritten. */
function hosted(request, url) {
  const path = /^\/client\/v4\/accounts\/[^/]+(\/workflows(?:\/.*)?)$/.exec(url.pathname)?.[1];
  if (!path) return refuse(404, 7003, `Could not route to ${url.pathname}`);
  if (request.headers.get("authorization") !== `Bearer ${TOKEN}`) return refuse(403, 10000, "Authentication error");
  return fetch(new Request(url.origin + EXPLORER_PATH + path + url.search, request));
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname.startsWith("/client/")) return hosted(request, url);
    const [, name, id, action] = url.pathname.split("/");
    const workflow = { orders: env.ORDERS, billing: env.BILLING }[name];
    if (request.method !== "POST" || !workflow || !id) return new Response("not found", { status: 404 });
    try {
      if (action) await act(await workflow.get(id), action, url.searchParams.get("type") ?? "approve");
      else await workflow.create({ id, params: await request.json() });
      return Response.json({ id });
    } catch (error) {
      return Response.json({ error: error.message }, { status: 500 });
    }
  },
};
