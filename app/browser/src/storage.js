/**
 * Browser storage. `store` is localStorage if the visitor and the browser allow it, else an object that lives as long
 * as the document. Items are plain properties of both.
 */

import { options } from './settings.js';

/**
 * Return the result of `action`, or undefined if it throws: the browser may block storage, the page may be sandboxed,
 * the disk may be full. `onError` receives the error.
 */
export const attempt = (action, onError) => {
  try {
    return action();
  } catch (error) {
    onError?.(error);
  }
};

/** Like `attempt`, but return undefined if the page is cookieless. */
export const attemptPersistent = (action) => (options.cookieless ? undefined : attempt(action));

export let store = {};

/** Store `value`; remove the item if `value` is falsy. */
export const setItem = (name, value) => attempt(() => (value ? (store[name] = value) : delete store[name]));

/** Switch to localStorage and move items from memory there. */
export const openStore = () =>
  attemptPersistent(() => {
    // The marker `segue_` makes this throw if storage is blocked or full.
    store = Object.assign(localStorage, store, { segue_: 1 });
  });

/** Switch to memory. */
export function closeStore() {
  store = {};
}

/** Set the visitor cookie; `seconds` 0 removes it. */
export const setCookie = (value, seconds) =>
  attempt(() => {
    document.cookie =
      `segue_v=${value};max-age=${seconds};domain=${options.cookieDomain || ''};path=/;samesite=lax` +
      (isSecureContext ? ';secure' : '');
  });
