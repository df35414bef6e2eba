/** Hides: which of the browser's events lead where. */

import { alive, click, describe } from './clicks.js';
import { decide } from './consent.js';
import { flush, save } from './delivery.js';
import { auto } from './messages.js';
import { dress, follow } from './personalize.js';
import { options } from './settings.js';
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
  storage: ({ key, newValue }) => key == 'segue_c' && decide(JSON.parse(newValue)), // said in another tab
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
    flush(document.hidden);
    follow();
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
  // First in line; none of these events waits for its listeners.
  for (const type in HANDLERS) addEventListener(type, HANDLERS[type], true);
  if (options.personalize)
    new MutationObserver(dress).observe(document, { subtree: true, childList: true });
  look();
};
