// Sends with Segment's own Node client: node send.mjs HOST WRITE_KEY COUNT; prints what it could not deliver.
import { createRequire } from "node:module";

const require = createRequire(new URL("../node/package.json", import.meta.url));
const { Analytics } = require("@segment/analytics-node");

const [host, writeKey, count] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, flushAt: 20, maxRetries: 3 });
const failures = [];
analytics.on("error", (error) => failures.push(String(error.reason ?? error.code ?? error)));

for (let number = 0; number < Number(count); number += 1) {
  analytics.track({
    userId: `user-${number}`,
    event: "Product Viewed",
    properties: { number, price: 19.9, tags: ["a", "ü"], nothing: null },
    context: { page: { url: "https://shop.example/?gclid=G1" } },
    messageId: `node-${number}`,
  });
}
analytics.identify({ userId: "user-0", traits: { email: "a@example.com", plan: "pro" }, messageId: "node-identify" });
analytics.page({ anonymousId: "anon-0", name: "Home", messageId: "node-page" });
analytics.group({ userId: "user-0", groupId: "group-0", traits: { size: 3 }, messageId: "node-group" });
analytics.alias({ userId: "user-0", previousId: "anon-0", messageId: "node-alias" });
analytics.track({ userId: "user-0", event: "added_to_segment", messageId: "node-reserved" });
await analytics.closeAndFlush({ timeout: 30_000 });
console.log(JSON.stringify({ failures }));
