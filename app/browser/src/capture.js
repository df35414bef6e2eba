/** Automatic capture: registers the event listeners. */

import { cancelDeadClick, describeElement, handleClick } from './clicks.js';
import { applyConsent } from './consent_changes.js';
import { flush, saveQueue } from './delivery.js';
import { captureEvent } from './messages.js';
import { openStream, updateElements } from './personalization.js';
import { options } from './settings.js';
import { detectView, recordScrollDepth, recordVisibleTime } from './views.js';

let scrollTimer;
let errorCount = 0;

/** The delay lets an app set the title of the new view or call page() itself. */
const detectViewSoon = () => setTimeout(detectView, 50);

const handleError = ({ reason, message = reason?.message, filename, lineno }) => {
  if (message && errorCount++ < 10) captureEvent('errors', 'JavaScript Error', { message, filename, lineno });
};

const HANDLERS = {
  click: handleClick,
  auxclick: handleClick,
  blur: cancelDeadClick,
  popstate: detectViewSoon,
  error: handleError,
  unhandledrejection: handleError,
  online: () => flush(),
  // a consent choice in another tab
  storage: ({ key, newValue }) => key == 'segue_c' && applyConsent(JSON.parse(newValue)),
  submit({ target }) {
    cancelDeadClick();
    captureEvent('forms', 'Form Submitted', describeElement(target));
  },
  scroll() {
    cancelDeadClick();
    clearTimeout(scrollTimer);
    scrollTimer = setTimeout(recordScrollDepth, 200);
  },
  visibilitychange() {
    recordVisibleTime();
    flush(document.hidden);
    openStream();
  },
  pagehide: saveQueue, // saves messages of a page that was hidden before it was closed
};

export const startCapture = () => {
  for (const name of ['pushState', 'replaceState']) {
    const original = history[name];
    history[name] = (...state) => {
      original.apply(history, state);
      detectViewSoon();
    };
  }
  // The capture phase runs before handlers of the page that may stop the event.
  for (const type in HANDLERS) addEventListener(type, HANDLERS[type], true);
  if (options.personalize)
    new MutationObserver(updateElements).observe(document, { subtree: true, childList: true });
  detectView();
};
