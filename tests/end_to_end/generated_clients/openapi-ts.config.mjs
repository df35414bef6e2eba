// Settings of @hey-api/openapi-ts. Node needs file extensions in imports.
export default {
  input: "openapi.json",
  output: { path: "hey_api", module: { extension: ".js" } },
  plugins: ["@hey-api/typescript", "@hey-api/sdk", "@hey-api/client-fetch"],
};
