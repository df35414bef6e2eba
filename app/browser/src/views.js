/**
 * Page views: their start, visible time and scroll depth. A document has one view, an app that changes its URL has
 * several.
 */

import { cancelDeadClick } from './clicks.js';
import { captureEvent, isCaptured, recordMessage } from './messages.js';
import { enterView, pageAddress, searchQuery, view } from './page_context.js';

let scrollDepth; // in quarters of the page
let visibleSince = Infinity;

const startView = () => {
  recordVisibleTime();
  enterView();
  scrollDepth = 0;
};

export const recordPage = (name, category, properties) => {
  startView();
  recordMessage('page', { name, category, properties: { ...view, ...properties } });
  if (searchQuery) captureEvent('search', 'Site Searched', { query: searchQuery });
};

/** Start a view if the URL has changed. */
export const detectView = () => {
  if (pageAddress() != view.url) isCaptured('pages') ? recordPage() : startView();
};

/** Record the visible time since the last record. */
export const recordVisibleTime = () => {
  const now = Date.now();
  const seconds = ((now - visibleSince) / 1e3) | 0;
  cancelDeadClick();
  if (seconds > 0) captureEvent('time', 'Page Left', { ...view, seconds });
  visibleSince = document.hidden ? Infinity : now;
};

/** Record the scroll depth. Call it after scrolling has stopped: reading the layout is free then. */
export const recordScrollDepth = () => {
  const quarters = (((scrollY + innerHeight + 9) / document.documentElement.scrollHeight) * 4) | 0;
  if (quarters > scrollDepth) captureEvent('scroll', 'Page Scrolled', { percent: (scrollDepth = quarters) * 25 });
};
