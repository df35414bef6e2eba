/**
 * Hides: who the visitor is. A random secret, the proof, is kept in a cookie and in localStorage, each restoring the
 * other; the anonymous id is its SHA-256, so whoever knows the proof owns the id. Both are read again for each message,
 * for another tab may have reset them.
 */

import { keep, put, putCookie, store } from './storage.js';

/** `text` as UTF-8. */
export const encode = (text) => new TextEncoder().encode(text);

const hex = (bytes) => new Uint8Array(bytes).reduce((text, byte) => text + (byte + 256).toString(16).slice(1), '');

/** 16 random bytes as hex. */
export const random = () => hex(crypto.getRandomValues(new Uint8Array(16)));

/** The visitor of now: `_proof`, `_id` (absent until the hash is there) and `_known`, the promise of it. */
export let who = {};

/** Without a secure context there is no hash: the id is random, and proves nothing. */
const hash = async (visitor) => {
  const digest = await crypto.subtle?.digest('SHA-256', encode(visitor._proof));
  visitor._id = digest ? hex(digest.slice(0, 16)) : visitor._proof;
};

/** Finds or makes the visitor. */
export const meet = () => {
  const proof = keep(() => /segue_v=(\w+)/.exec(document.cookie)[1]) || store.segue_v || who._proof || random();
  if (proof != who._proof) {
    who = { _proof: proof };
    who._known = hash(who);
    put('segue_v', proof);
    putCookie(proof, 34560000); // 400 days, the most that browsers grant
  }
  return who;
};

/** Forgets the visitor, and what is stored under these names. */
export const forget = (names) => {
  who = {};
  putCookie('', 0);
  for (const name of Object.keys(store)) if (names.test(name)) put(name);
};
