/** Hides: what a message says of the page that it comes from. Nothing here makes the browser lay out the page. */

import { hideEmails } from './redact.js';

const CLICK_ID = /(cl|clk|fat_|cc|_c)id$|braid$|^epik$/i;
const SEARCH = /^(q|s|search|query|keywords?)$/;

/** The address of the view: what follows # counts only where an app keeps its route there. */
export const address = () => location.href.replace(/#(?![!/]).*/, '');

/** Where the visitor came from: another page, or an earlier view of this one. */
let { referrer } = document;
export const leaveFor = (url) => (referrer = url);

export let searched; // what the last page looked at was asked for, if it shows results of a search
let marks; // its campaign and click ids as text

/** {page, campaign, clickIds}, as Segment names them. */
export const pageContext = () => {
  const search = hideEmails(location.search);
  const context = {
    page: { path: location.pathname, referrer, search, title: document.title, url: address() },
  };
  const put = (group, name, value) => {
    (context[group] ||= {})[name] = value;
    marks += name + encodeURI(value);
  };
  searched = marks = '';
  for (const [name, value] of new URLSearchParams(search)) {
    if (/^utm_/.test(name)) put('campaign', name.slice(4).replace('campaign', 'name'), value);
    if (CLICK_ID.test(name)) put('clickIds', name, value);
    if (SEARCH.test(name)) searched ||= value;
  }
  return context;
};

/** What brought the visitor here from outside: a text without spaces, another for another campaign or site. */
export const arrival = () => {
  const site = referrer && new URL(referrer).host;
  pageContext();
  return marks || (site == location.host ? '' : site);
};

/** What all messages of a page share. Asked for when the first batch leaves: by then the page is laid out. */
let shared;
export const sharedContext = () =>
  (shared ||= {
    library: { name: 'segue.js', version: VERSION },
    locale: navigator.language,
    timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    screen: { innerWidth, innerHeight },
  });
