/** The consent choice. consent_changes.js applies a new choice to the other modules. */

import { options } from './settings.js';
import { attempt } from './storage.js';

/** undefined or null: undecided; true: everything; false: nothing; else {analytics, personalization, ..} */
export let consent;

export const isAllowed = (category) => consent === true || consent?.[category];

/** Return whether messages may be stored and sent. */
export const isAnalyticsAllowed = () => isAllowed('analytics');

/** Return the visitor's stored choice, else the browser's signals, else the page's default. */
export const initialConsent = () =>
  attempt(() => JSON.parse(localStorage.segue_c)) ??
  ((options.respectDnt && navigator.doNotTrack == 1) || (options.respectGpc && navigator.globalPrivacyControl)
    ? false
    : !options.consent?.required || null);

export function setConsent(choice) {
  consent = choice;
}

/** Store the choice for the next page and for other tabs. */
export const storeConsent = () => attempt(() => (localStorage.segue_c = JSON.stringify(consent)));
