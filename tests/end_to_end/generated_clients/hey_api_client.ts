// Calls Segue through the SDK that @hey-api/openapi-ts generates.
// Options (see settings.ts): base URL, write key, secret key, user id.

import { createClient } from "./hey_api/client/index.js";
import { collectBatch, createSegment, getCustomer, listSegmentMembers } from "./hey_api/sdk.gen.js";
import type { Rule } from "./hey_api/types.gen.js";
import { assertEqual, baseUrl, secretKey, userId, writeKey } from "./settings.js";

const sender = createClient({ baseUrl, auth: `${writeKey}:` });
const reader = createClient({ baseUrl, auth: secretKey });

const receipt = await collectBatch({
  client: sender,
  body: {
    batch: [
      { type: "identify", userId, traits: { plan: "pro" } },
      { type: "track", userId, event: "Order Completed", properties: { total: 42.5 } },
    ],
  },
});
assertEqual(receipt.data?.accepted, 2);

const rule: Rule = {
  all: [
    { sum: "total", of: "Order Completed", within: "90d", gte: 40 },
    { not: { trait: "plan", eq: "free" } },
    { any: [{ did: "Order Completed", at_least: 1 }, { segment: "first-time-buyers" }] },
  ],
};
const key = `${userId}-spenders`;
const created = await createSegment({ client: reader, body: { key, rule } });
assertEqual(created.data?.version, 1);
const duplicate = await createSegment({ client: reader, body: { key, rule } });
assertEqual(duplicate.error?.code, "conflict");

const customer = await getCustomer({ client: reader, path: { customer: `user_id:${userId}` } });
assertEqual(customer.data?.stages["six-stage"]?.stage, "purchase");
assertEqual(customer.data?.segments.some((segment) => segment.key === key), true);

const members = await listSegmentMembers({ client: reader, path: { key }, query: { limit: 1000 } });
assertEqual(members.data?.items.some((member) => member.id === customer.data?.id), true);

const missing = await getCustomer({ client: reader, path: { customer: "no-such-customer" } });
assertEqual(missing.error?.code, "not_found");
console.log("done");
