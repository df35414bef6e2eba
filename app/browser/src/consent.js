/**
 * Hides: whether anything may be stored and sent. Undecided: messages wait in memory. Granted: they go out. Refused:
 * they are dropped, and what was stored is forgotten.
 */

import { forget } from './identity.js';
import { options } from './settings.js';
import { attempt, open } from './storage.js';

let granted; // undefined: undecided; true: everything; false: nothing; else {analytics, personalization, ..}

export const undecided = () => granted === undefined;

export const allows = (category = 'analytics') => granted === true || granted?.[category];

/** In the context of each message, as Segment names it. */
export const consentContext = () => granted?.analytics && { categoryPreferences: granted };

let settle; // called after each change

const decide = (choice, remember) => {
  granted = choice;
  if (allows()) open();
  else if (!undecided()) forget(/^segue_/);
  if (remember && !(options.cookieless && choice)) attempt(() => (localStorage.segue_c = JSON.stringify(choice)));
  settle();
};

/** What the visitor chose. A refusal leaves no trace; that of `optOut` is remembered, as it must be. */
export const consent = (choice) => decide(choice, choice);
export const optOut = () => decide(false, true);
export const optIn = () => decide(true, true);

/** At first the visitor's earlier word counts, else the browser's, else the page's rule. */
export const begin = (onChange) => {
  settle = onChange;
  const { respectDnt, respectGpc, consent } = options;
  const signal = (respectDnt && navigator.doNotTrack == 1) || (respectGpc && navigator.globalPrivacyControl);
  decide(attempt(() => JSON.parse(localStorage.segue_c)) ?? (signal ? false : consent?.required ? undefined : true));
};
