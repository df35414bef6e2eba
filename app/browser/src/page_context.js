/** The page context of messages, and the current view. Nothing here makes the browser lay out the page. */

import { redactEmails } from './redaction.js';

let { referrer } = document; // another page, or the view before

/** The page context at the start of the current view. */
export let view = {};

/** What the visitor searched for, if the address of the latest context shows search results. */
export let searchQuery;

/** What follows # counts only if an app keeps its route there. */
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

/** Make the current page the view, and the view before its referrer. */
export function enterView() {
  referrer = view.url || referrer;
  view = pageContext().page;
}
