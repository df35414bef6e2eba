/**
 * Hides: whether anything may be stored and sent. Undecided: messages wait in memory. Granted: they go out. Refused:
 * they are dropped, and what was stored is forgotten.
 */

import { adopt } from './delivery.js';
import { forget } from './identity.js';
import { release } from './messages.js';
import { turn } from './personalize.js';
import { options } from './settings.js';
import { attempt, open } from './storage.js';

/** undefined: undecided; true: everything; false: nothing; else {analytics, personalization, ..} */
export let granted;

export const allows = (category) => granted === true || granted?.[category];

/** Whether things may be stored and sent at all. */
export const isOn = () => allows('analytics');

const decide = (choice, remember) => {
  granted = choice;
  if (isOn()) {
    open();
    adopt();
  } else if (granted != null) forget(/^segue_/);
  if (remember) attempt(() => (localStorage.segue_c = JSON.stringify(choice)));
  turn();
  release();
};

/** What the visitor chose. A refusal leaves no trace; that of `optOut` is remembered, as it must be. */
export const consent = (choice) => decide(choice, choice);
export const optOut = () => decide(false, true);
export const optIn = () => decide(true, true);

/** At first the visitor's earlier word counts, else the browser's, else the page's rule. */
export const begin = () => {
  const refuses =
    (options.respectDnt && navigator.doNotTrack == 1) || (options.respectGpc && navigator.globalPrivacyControl);
  const first = !refuses && (!options.consent.required || undefined);
  decide(attempt(() => JSON.parse(localStorage.segue_c)) ?? first);
};
