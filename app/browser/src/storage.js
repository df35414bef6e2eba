/**
 * Hides: where things are kept. `store` is the browser's localStorage once that is allowed and works, else an object
 * that lives as long as the document; both are read as plain properties.
 */

import { options } from './settings.js';

/** What `action` returns; undefined where the browser forbids it: blocked storage, a sandbox, a full disk. */
export const attempt = (action) => {
  try {
    return action();
  } catch {
    // as good as absent
  }
};

export let store = {};

export const put = (name, value) => attempt(() => (value ? (store[name] = value) : delete store[name]));

/** From now on things are kept; what is in memory moves along. */
export const open = () =>
  options.cookieless ||
  attempt(() => {
    localStorage.segue_ = 1; // throws where storage is full or blocked
    delete localStorage.segue_;
    store = Object.assign(localStorage, store);
  });

export const cookie = () => options.cookieless ? 0 : attempt(() => /segue_v=(\w{32})/.exec(document.cookie)[1]);

/** A cookie of this site alone; `seconds` 0 removes it. */
export const putCookie = (value, seconds) =>
  options.cookieless ||
  attempt(() => {
    const { cookieDomain } = options;
    document.cookie =
      `segue_v=${value};path=/;samesite=lax;max-age=` +
      seconds +
      (cookieDomain ? ';domain=' + cookieDomain : '') +
      (location.protocol == 'https:' ? ';secure' : '');
  });
