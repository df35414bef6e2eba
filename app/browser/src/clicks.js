/** Hides: which clicks are worth a message: those that lead away, those in anger, those in vain. */

import { auto } from './messages.js';

/** Attributes are asked for: properties of a form may be fields of those names. */
export const describe = (element) => ({
  element: element.localName,
  id: element.getAttribute?.('id'),
  name: element.getAttribute?.('name'),
});

let last; // element clicked
let lastAt;
let count; // of clicks on it, each at most half a second after the one before
let dying;

/** Whatever happens after a click shows that it was not in vain. */
export const alive = () => {
  clearTimeout(dying);
  watcher.disconnect();
};
const watcher = new MutationObserver(alive);

export const click = ({ target, button, timeStamp }) => {
  const link = target.closest?.('a[href]');
  if (link?.host && button < 2) {
    // the right one opens a menu
    const extension = /\.(pdf|(doc|xls|ppt)x?|csv|zip|mp4)$/i.exec(link.pathname)?.[1];
    const properties = { url: link.href, text: link.text, extension };
    if (extension || link.matches('[download]')) auto('downloads', 'File Downloaded', properties);
    else if (link.host != location.host) auto('links', 'Outbound Link Clicked', properties);
  }
  if (button) return;
  const properties = describe(target);
  count = target == last && timeStamp - lastAt < 500 ? count + 1 : 1;
  last = target;
  lastAt = timeStamp;
  if (count == 3) auto('clicks', 'Rage Click', properties);
  alive();
  if (target.closest?.('button,[role=button],a[href^="#"]')) {
    watcher.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
    dying = setTimeout(() => {
      alive();
      auto('clicks', 'Dead Click', properties);
    }, 2500);
  }
};
