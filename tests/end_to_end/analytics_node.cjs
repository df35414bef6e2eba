// Sends COUNT track calls and an identify through the stock SDK: node analytics_node.cjs HOST WRITE_KEY USER COUNT
const { Analytics } = require("@segment/analytics-node");

const [host, writeKey, userId, count] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, flushAt: 10, flushInterval: 200 });
analytics.on("error", (error) => console.error("error:", error.code, error.reason));

analytics.identify({ userId, anonymousId: `${userId}-device`, traits: { email: `${userId}@example.com` } });
for (let number = 0; number < Number(count); number++) {
  analytics.track({ userId, event: "Product Viewed", properties: { number } });
}
analytics.flush({ timeout: 30_000, close: true }).then(() => console.log("flushed"));
