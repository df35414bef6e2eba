/**
 * The visitor's anonymous identity. The proof is a random secret in a cookie and in localStorage; each restores the
 * other. The anonymous id is the SHA-256 of the proof, so only the owner of the proof can claim the id. Every message
 * reads both again, because another tab may have reset them.
 */

import { options } from './settings.js';
import { attempt, attemptPersistent, setCookie, setItem, store } from './storage.js';

/** Encode `text` as UTF-8. */
export const encodeUtf8 = (text) => new TextEncoder().encode(text);

const toHex = (bytes) => new Uint8Array(bytes).reduce((text, byte) => text + (byte + 256).toString(16).slice(1), '');

/** Return 16 random bytes as hex. */
export const randomHex = () => toHex(crypto.getRandomValues(new Uint8Array(16)));

/**
 * The current visitor: `_proof`; `_id`, absent until the hash is computed; `_idReady`, a promise of the id; and
 * `_token`, which authenticates the stream. A token from the site's server also authenticates a login.
 */
export let visitor = {};

/** Set the id. An insecure context has no hash function: the proof itself is the id, without any protection. */
async function setId(target) {
  const digest = await crypto.subtle?.digest('SHA-256', encodeUtf8(target._proof));
  target._id = digest ? toHex(digest.slice(0, 16)) : target._proof;
}

/** Return the stored visitor, or create one. */
export const loadVisitor = () => {
  const proof =
    attemptPersistent(() => /segue_v=(\w+)/.exec(document.cookie)[1]) ||
    store.segue_v ||
    visitor._proof ||
    randomHex();
  if (proof != visitor._proof) {
    if (visitor._proof) visitor = {}; // another tab created a new visitor
    visitor._proof = proof;
    visitor._idReady = setId(visitor);
    setItem('segue_v', proof);
    attemptPersistent(() => setCookie(proof, 34560000)); // 400 days, the longest that browsers grant
  }
  return visitor;
};

/** Forget the visitor and erase stored items whose names match `names`, including those of earlier pages. */
export const forgetVisitor = (names) => {
  visitor = {};
  setCookie('', 0);
  for (const items of [store, attempt(() => localStorage)])
    for (const name in items) if (names.test(name)) delete items[name];
};
