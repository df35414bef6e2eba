/**
 * Hides: who the visitor is. A random secret, the proof, is kept in a cookie and in localStorage, each restoring the
 * other; the anonymous id is its SHA-256, so whoever knows the proof owns the id. Both are read again for each message,
 * for another tab may have reset them.
 */

import { options } from './settings.js';
import { attempt, keep, put, putCookie, store } from './storage.js';

/** `text` as UTF-8. */
export const encode = (text) => new TextEncoder().encode(text);

const hex = (bytes) => new Uint8Array(bytes).reduce((text, byte) => text + (byte + 256).toString(16).slice(1), '');

/** 16 random bytes as hex. */
export const random = () => hex(crypto.getRandomValues(new Uint8Array(16)));

/**
 * The visitor of now: `_proof`, `_id` (absent until the hash is there), `_known`, the promise of it, and `_token`, which
 * says to the stream who they are; one that the site has fetched vouches for a login too.
 */
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
    if (who._proof) who = {}; // another tab has made one; else it is the one who was meant all along
    who._proof = proof;
    who._known = hash(who);
    put('segue_v', proof);
    keep(() => putCookie(proof, 34560000)); // 400 days, the most that browsers grant
  }
  return who;
};

/** Forgets the visitor, and what is stored under these names, by whichever page. */
export const forget = (names) => {
  who = {};
  putCookie('', 0);
  for (const place of [store, attempt(() => localStorage)])
    for (const name in place) if (names.test(name)) delete place[name];
};
