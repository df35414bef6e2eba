// Reads the settings that test_generated_clients.py passes as arguments.

declare const process: { argv: string[] };

export const [baseUrl = "", writeKey = "", secretKey = "", userId = ""] = process.argv.slice(2);

export function assertEqual<Value>(actual: Value, expected: Value): void {
  if (actual !== expected) {
    throw new Error(`expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`);
  }
}
