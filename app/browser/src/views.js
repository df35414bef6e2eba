/**
 * Hides: what a view of a page is, how long and how far it was seen, and what messages say of it. A document has one
 * view, an app that changes its address many. Nothing here makes the browser lay out the page.
 */

import { alive } from './clicks.js';
import { auto, captures, say } from './messages.js';
import { hideEmails } from './redact.js';

let { referrer } = document; // another page, or the view before
let seen; // the address of the view
let view; // its page context, as it began
let query; // what the visitor searched for, where the address shows results
let depth; // quarters of it that were scrolled to
let since = Infinity; // when it was last seen to be visible

/** What follows # counts only where an app keeps its route there. */
const address = () => location.href.replace(/#(?![!/]).*/, '');

/** {page, campaign, clickIds}, as Segment names them. */
export const pageContext = () => {
  const search = hideEmails(location.search);
  const context = {
    page: { path: location.pathname, referrer, search, title: document.title, url: address() },
  };
  query = '';
  for (const [name, value] of new URLSearchParams(search)) {
    const group = /^utm_/.test(name) ? 'campaign' : /clk?id$|braid$|^li_fat_id$/.test(name) && 'clickIds';
    if (group) (context[group] ||= {})[name.replace('utm_campaign', 'name').replace('utm_', '')] = value;
    if (/^(q|s|search|query|keywords?)$/.test(name)) query = value;
  }
  return context;
};

const begin = () => {
  leave();
  referrer = seen || referrer;
  seen = address();
  view = pageContext().page;
  depth = 0;
};

export const page = (name, category, properties) => {
  begin();
  say('page', { name, category, properties: { ...view, ...properties } });
  if (query) auto('search', 'Site Searched', { query });
};

/** Is this another view? */
export const look = () => {
  if (address() != seen) captures('pages') ? page() : begin();
};

/** Says how long the view was visible since that was last said. */
export const leave = () => {
  const now = Date.now();
  const seconds = ((now - since) / 1e3) | 0;
  alive();
  if (seconds > 0) auto('time', 'Page Left', { ...view, seconds });
  since = document.hidden ? Infinity : now;
};

/** Once scrolling has come to rest the layout is there: to read it costs nothing. */
export const measure = () => {
  const quarters = (((scrollY + innerHeight + 9) / document.documentElement.scrollHeight) * 4) | 0;
  if (quarters > depth) auto('scroll', 'Page Scrolled', { percent: (depth = quarters) * 25 });
};
