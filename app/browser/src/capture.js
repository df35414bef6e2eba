/** Hides: which of the browser's events lead where. */

import { alive, click, describe } from './clicks.js';
import { flush, save } from './delivery.js';
import { auto } from './messages.js';
import { dress, follow, unfollow } from './personalize.js';
import { leave, look, measure } from './views.js';

let scrolling;
let errors = 0;

/** A new view has its title by then, or has called page() itself. */
const lookSoon = () => setTimeout(look, 50);

const onError = ({ reason, message = reason?.message, filename, lineno }) => {
  if (message && errors++ < 10) auto('errors', 'JavaScript Error', { message, filename, lineno });
};

const HANDLERS = {
  click,
  auxclick: click,
  blur: alive,
  popstate: lookSoon,
  error: onError,
  unhandledrejection: onError,
  online: () => flush(),
  submit({ target }) {
    alive();
    auto('forms', 'Form Submitted', describe(target));
  },
  scroll() {
    alive();
    clearTimeout(scrolling);
    scrolling = setTimeout(measure, 200);
  },
  visibilitychange() {
    leave();
    document.hidden ? unfollow() : follow();
    flush(document.hidden);
  },
  pagehide: save, // of a page that was hidden before
};

export const listen = () => {
  for (const name of ['pushState', 'replaceState']) {
    const original = history[name];
    history[name] = (...state) => {
      original.apply(history, state);
      lookSoon();
    };
  }
  // First in line, and never in the way of scrolling.
  for (const type in HANDLERS) addEventListener(type, HANDLERS[type], { capture: true, passive: true });
  new MutationObserver(dress).observe(document, { childList: true, subtree: true });
  look();
};
