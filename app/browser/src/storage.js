/**
 * Hides: where things are kept. `store` is the browser's localStorage once that is allowed and works, else an object
 * that lives as long as the document; both are read as plain properties.
 */

import { options } from './settings.js';

/**
 * What `action` returns; undefined where it fails, as where the browser forbids it: blocked storage, a sandbox, a full
 * disk. `tell` is told why.
 */
export const attempt = (action, tell) => {
  try {
    return action();
  } catch (error) {
    tell?.(error);
  }
};

/** The same, and undefined where the page wants nothing kept. */
export const keep = (action) => (options.cookieless ? undefined : attempt(action));

export let store = {};

export const put = (name, value) => attempt(() => (value ? (store[name] = value) : delete store[name]));

/** From now on things are kept; what is in memory moves along. */
export const open = () =>
  keep(() => {
    // Throws where storage is blocked or full: hence the mark.
    store = Object.assign(localStorage, store, { segue_: 1 });
  });

/** From now on nothing is kept. */
export const close = () => {
  store = {};
};

/** A cookie of this site alone; `seconds` 0 removes it. */
export const putCookie = (value, seconds) =>
  attempt(() => {
    document.cookie =
      `segue_v=${value};max-age=${seconds};domain=${options.cookieDomain || ''};path=/;samesite=lax` +
      (isSecureContext ? ';secure' : '');
  });
