/** Hides: which of the browser's events are worth a message. Listens passively, and asks for nothing that costs layout. */

import { flush, save } from './delivery.js';
import { say } from './messages.js';
import { address, leaveFor, pageContext, searched } from './page.js';
import { dress, follow, unfollow } from './personalize.js';
import { options } from './settings.js';

const DOWNLOAD = /\.(pdf|(doc|xls|ppt)x?|csv|txt|zip|rar|7z|gz|dmg|exe|apk|mp[34])$/i;
const BUTTON = 'button,[role=button],[onclick],a[href^="#"]';

const wanted = (kind) => options.capture === true || options.capture[kind];

const auto = (kind, event, properties, context) => wanted(kind) && say('track', { event, properties }, context);

// ---------------------------------------------------------------------------------------------------------- views

let view; // the context of the view
let seen; // its address
let depth; // quarters of it that were scrolled to
let since = Infinity; // when it was last seen to be visible

export const page = (name, category, properties) => {
  leave();
  if (seen) leaveFor(seen);
  seen = address();
  view = pageContext();
  depth = 0;
  say('page', { name, category, properties: { ...view.page, ...properties } });
  if (searched) auto('search', 'Site Searched', { query: searched });
};

const look = () => {
  if (address() != seen && wanted('pages')) page();
};

/** A new view has its title by then, or has called page() itself. */
const lookSoon = () => setTimeout(look, 50);

/** Says how long the view was visible since that was last said. */
const leave = () => {
  const now = Date.now();
  const seconds = Math.round((now - since) / 1e3);
  alive();
  if (seconds > 0) auto('time', 'Page Left', { seconds }, view);
  since = document.hidden ? Infinity : now;
};

// --------------------------------------------------------------------------------------------------------- clicks

let last; // element clicked
let lastAt = 0;
let clicks; // on it, each half a second after the one before at most
let dying;

/** Whatever happens after a click shows that it was not in vain. */
const alive = () => {
  clearTimeout(dying);
  watcher.disconnect();
};
const watcher = new MutationObserver(alive);

const click = ({ target, button, timeStamp }) => {
  const link = target.closest?.('a[href]');
  if (link?.host) {
    const extension = DOWNLOAD.exec(link.pathname)?.[1];
    const properties = { url: link.href, text: link.textContent.trim().slice(0, 100), extension };
    if (extension || link.hasAttribute('download')) auto('downloads', 'File Downloaded', properties);
    else if (link.host != location.host) auto('links', 'Outbound Link Clicked', properties);
  }
  if (button) return;
  const properties = { element: target.localName, id: target.id };
  clicks = target == last && timeStamp - lastAt < 500 ? clicks + 1 : 1;
  last = target;
  lastAt = timeStamp;
  if (clicks == 3) auto('clicks', 'Rage Click', properties);
  alive();
  if (target.closest?.(BUTTON)) {
    watcher.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    dying = setTimeout(() => {
      alive();
      auto('clicks', 'Dead Click', properties);
    }, 2500);
  }
};

// ---------------------------------------------------------------------------------------------------- all together

let scrolling;
let errors = 0;

const onError = ({ message, filename, lineno, error, reason = error }) => {
  message ||= reason?.message;
  if (message && errors++ < 10)
    auto('errors', 'JavaScript Error', { message, url: filename, line: lineno, stack: reason?.stack?.slice(0, 1e3) });
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
    const attribute = (name) => target.getAttribute(name);
    auto('forms', 'Form Submitted', { id: attribute('id'), name: attribute('name'), action: attribute('action') });
  },
  scroll() {
    alive();
    clearTimeout(scrolling);
    scrolling = setTimeout(() => {
      // Once scrolling has come to rest the layout is there: to read it costs nothing.
      const quarters = (((scrollY + innerHeight + 9) / document.documentElement.scrollHeight) * 4) | 0;
      if (quarters > depth) auto('scroll', 'Page Scrolled', { percent: (depth = quarters) * 25 });
    }, 200);
  },
  visibilitychange() {
    leave();
    document.hidden ? unfollow() : follow();
    flush(document.hidden);
  },
  pagehide: save, // of a page that was hidden before
};

export const begin = () => {
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
