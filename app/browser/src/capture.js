/** Hides: which of the browser's events are worth a message. Listens passively, and asks for nothing that costs layout. */

import { flush, revive } from './delivery.js';
import { listen } from './listeners.js';
import { say, track } from './messages.js';
import { address, leaveFor, pageContext, searched } from './page.js';
import { dress, follow, unfollow } from './personalize.js';
import { options } from './settings.js';

const DOWNLOAD = /\.(pdf|docx?|xlsx?|pptx?|csv|txt|zip|rar|7z|gz|dmg|exe|msi|apk|mp[34]|mov|epub)$/i;
const BUTTON = 'button,summary,[role=button],[onclick],a:not([href]),a[href^="#"]';
const ERRORS_MAX = 10;
const DEAD_MS = 2500;
const RENDER_MS = 50; // a new view has its title by then, or has called page() itself

const wanted = (kind) => options.capture === true || options.capture[kind];

const auto = (kind, event, properties, context) => wanted(kind) && track(event, properties, context);

const nameOf = (element) => element.localName + (element.id && '#' + element.id);

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
  appear();
  say('page', { name, category, properties: { ...view.page, name, category, ...properties } });
  if (searched) auto('search', 'Site Searched', { query: searched });
};

const look = () => {
  if (address() != seen && wanted('pages')) page();
};

const lookSoon = () => setTimeout(look, RENDER_MS);

const appear = () => {
  since = document.hidden ? Infinity : performance.now();
};

/** Says how long the view was visible since that was last said. */
const leave = () => {
  alive();
  const seconds = Math.round((performance.now() - since) / 1e3);
  if (seconds > 0) auto('time', 'Page Left', { seconds }, view);
  appear();
};

// --------------------------------------------------------------------------------------------------------- clicks

let clicks = []; // of the last second
let dying;

/** Whatever happens after a click shows that it was not in vain. */
const alive = () => {
  clearTimeout(dying);
  watcher.disconnect();
};
const watcher = new MutationObserver(alive);

const onClick = (event) => {
  const target = event.composedPath()[0];
  const link = target.closest?.('a[href]');
  if (link?.host) {
    const { href: url, host, pathname } = link;
    const properties = { url, text: link.textContent.trim().slice(0, 100) };
    const extension = DOWNLOAD.exec(pathname)?.[1];
    if (extension || link.hasAttribute('download')) auto('downloads', 'File Downloaded', { ...properties, extension });
    else if (host != location.host) auto('links', 'Outbound Link Clicked', properties);
  }
  if (event.button) return;
  const element = nameOf(target);
  clicks = clicks.filter(
    ({ timeStamp, clientX, clientY }) =>
      event.timeStamp - timeStamp < 1e3 && Math.hypot(event.clientX - clientX, event.clientY - clientY) < 30,
  );
  if (clicks.push(event) == 3) auto('clicks', 'Rage Click', { element });
  alive();
  if (target.closest?.(BUTTON)) {
    watcher.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    dying = setTimeout(() => {
      alive();
      auto('clicks', 'Dead Click', { element });
    }, DEAD_MS);
  }
};

// ---------------------------------------------------------------------------------------------------- all together

export const begin = () => {
  for (const name of ['pushState', 'replaceState']) {
    const original = history[name];
    history[name] = (...state) => {
      original.apply(history, state);
      lookSoon();
    };
  }
  listen('popstate', lookSoon);
  listen('hashchange', lookSoon);

  listen('click', onClick);
  listen('auxclick', onClick);
  listen('blur', alive);

  listen('submit', ({ target }) => {
    alive();
    auto('forms', 'Form Submitted', {
      id: target.getAttribute('id'),
      name: target.getAttribute('name'),
      url: target.getAttribute('action'),
    });
  });

  let scrolling;
  listen('scroll', () => {
    alive();
    clearTimeout(scrolling);
    scrolling = setTimeout(() => {
      // Once scrolling has come to rest the layout is there: to read it costs nothing.
      const quarters = Math.floor(((scrollY + innerHeight + 9) / document.documentElement.scrollHeight) * 4);
      if (quarters > depth) auto('scroll', 'Page Scrolled', { percent: (depth = quarters) * 25 });
    }, 200);
  });

  let errors = 0;
  const onError = ({ message, filename, lineno, error, reason = error }) => {
    message ||= reason?.message;
    if (message && errors++ < ERRORS_MAX)
      auto('errors', 'JavaScript Error', { message, url: filename, line: lineno, stack: reason?.stack?.slice(0, 1e3) });
  };
  listen('error', onError);
  listen('unhandledrejection', onError);

  listen('visibilitychange', () => {
    leave();
    flush();
    document.hidden ? unfollow() : follow();
  });
  listen('pagehide', () => {
    look();
    leave();
    flush(true);
  });
  listen('pageshow', ({ persisted }) => persisted && revive());
  listen('online', () => flush());

  new MutationObserver(dress).observe(document, { childList: true, subtree: true });
  look();
};
