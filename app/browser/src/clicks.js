/** Click capture: outbound links, downloads, rage clicks, and dead clicks (nothing changes after the click). */

import { captureEvent } from './messages.js';

/**
 * Describe an element. Reads attributes, because a form exposes its fields as properties, and a field may be named
 * `id`.
 */
export const describeElement = (element) => ({
  element: element.localName,
  id: element.getAttribute?.('id'),
  name: element.getAttribute?.('name'),
});

let lastElement; // the element of the last click
let lastTime;
let clickCount; // consecutive clicks on it, with pauses of at most half a second
let deadClickTimer;

/** Stop the wait for a dead click: something happened after the click. */
export const cancelDeadClick = () => {
  clearTimeout(deadClickTimer);
  changeObserver.disconnect();
};
const changeObserver = new MutationObserver(cancelDeadClick);

export const handleClick = ({ target, button, timeStamp }) => {
  const link = target.closest?.('a[href]');
  if (link?.host && button < 2) {
    // the right button opens a menu
    const extension = /\.(pdf|(doc|xls|ppt)x?|csv|zip|mp4)$/i.exec(link.pathname)?.[1];
    const properties = { url: link.href, text: link.text, extension };
    if (extension || link.matches('[download]')) captureEvent('downloads', 'File Downloaded', properties);
    else if (link.host != location.host) captureEvent('links', 'Outbound Link Clicked', properties);
  }
  if (button) return;
  const properties = describeElement(target);
  clickCount = target == lastElement && timeStamp - lastTime < 500 ? clickCount + 1 : 1;
  lastElement = target;
  lastTime = timeStamp;
  if (clickCount == 3) captureEvent('clicks', 'Rage Click', properties);
  cancelDeadClick();
  if (target.closest?.('button,[role=button],a[href^="#"]')) {
    changeObserver.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
    deadClickTimer = setTimeout(() => {
      cancelDeadClick();
      captureEvent('clicks', 'Dead Click', properties);
    }, 2500);
  }
};
