// Calls Segue through types of openapi-typescript and the client openapi-fetch.
// Options (see settings.ts): base URL, write key, secret key, user id.

import createClient from "openapi-fetch";
import type { components, paths } from "./openapi_typescript.js";
import { assertEqual, baseUrl, secretKey, userId, writeKey } from "./settings.js";

const sender = createClient<paths>({ baseUrl, headers: { Authorization: `Basic ${btoa(`${writeKey}:`)}` } });
const reader = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${secretKey}` } });

const receipt = await sender.POST("/v1/batch", {
  body: {
    batch: [
      { type: "identify", userId, traits: { plan: "pro" } },
      { type: "track", userId, event: "Order Completed", properties: { total: 42.5 } },
    ],
  },
});
assertEqual(receipt.data?.accepted, 2);

const rule: components["schemas"]["Rule"] = {
  all: [
    { sum: "total", of: "Order Completed", within: "90d", gte: 40 },
    { not: { trait: "plan", eq: "free" } },
    { any: [{ did: "Order Completed", at_least: 1 }, { segment: "first-time-buyers" }] },
  ],
};
const key = `${userId}-spenders`;
const created = await reader.POST("/v1/segments", { body: { key, rule } });
assertEqual(created.data?.version, 1);
const duplicate = await reader.POST("/v1/segments", { body: { key, rule } });
assertEqual(duplicate.error?.code, "conflict");

const customer = await reader.GET("/v1/customers/{customer}", { params: { path: { customer: `user_id:${userId}` } } });
assertEqual(customer.data?.stages["six-stage"]?.stage, "purchase");
assertEqual(customer.data?.segments.some((segment) => segment.key === key), true);

const members = await reader.GET("/v1/segments/{key}/members", { params: { path: { key }, query: { limit: 1000 } } });
assertEqual(members.data?.items.some((member) => member.id === customer.data?.id), true);

const missing = await reader.GET("/v1/customers/{customer}", { params: { path: { customer: "no-such-customer" } } });
assertEqual(missing.error?.code, "not_found");
console.log("done");
