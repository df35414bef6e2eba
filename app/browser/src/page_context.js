/** Page context of messages, and the current view. Nothing here forces a layout. */

import { redactEmails } from './redaction.js';

let { referrer } = document; // the URL of the previous page or view

/** The page context at the start of the current view. */
export let view = {};

/** The search query in the URL of the latest context. */
export let searchQuery;

/** Return the URL. The fragment is included only if an app keeps its route there. */
export const pageAddress = () => location.href.replace(/#(?![!/]).*/, '');

/** Return {page, campaign, clickIds}, with Segment's names. */
export const pageContext = () => {
  const search = redactEmails(location.search);
  const context = {
    page: { path: location.pathname, referrer, search, title: document.title, url: pageAddress() },
  };
  searchQuery = '';
  for (const [name, value] of new URLSearchParams(search)) {
    const group = /^utm_/.test(name) ? 'campaign' : /clk?id$|braid$|^li_fat_id$/.test(name) && 'clickIds';
    if (group) (context[group] ||= {})[name.replace('utm_campaign', 'name').replace('utm_', '')] = value;
    if (/^(q|s|search|query|keywords?)$/.test(name)) searchQuery = value;
  }
  return context;
};

/** Make the current page the view, and the previous view its referrer. */
export function enterView() {
  referrer = view.url || referrer;
  view = pageContext().page;
}
