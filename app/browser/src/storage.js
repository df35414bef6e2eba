/**
 * Browser storage. `store` is localStorage once the visitor allows it and the browser permits it; until then it is an
 * object that lives as long as the document. Both are read as plain properties.
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

/** Like `attempt`, but return undefined without a call if the page asked to store nothing. */
export const attemptPersistent = (action) => (options.cookieless ? undefined : attempt(action));

export let store = {};

/** Store `value`; remove the item if `value` is falsy. */
export const setItem = (name, value) => attempt(() => (value ? (store[name] = value) : delete store[name]));

/** Store items in localStorage from now on; items in memory move there. */
export const openStore = () =>
  attemptPersistent(() => {
    // The marker `segue_` makes this throw if storage is blocked or full.
    store = Object.assign(localStorage, store, { segue_: 1 });
  });

/** Keep items in memory only from now on. */
export function closeStore() {
  store = {};
}

/** Set the cookie of this site; `seconds` 0 removes it. */
export const setCookie = (value, seconds) =>
  attempt(() => {
    document.cookie =
      `segue_v=${value};max-age=${seconds};domain=${options.cookieDomain || ''};path=/;samesite=lax` +
      (isSecureContext ? ';secure' : '');
  });
