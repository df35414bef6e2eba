/** Redaction: removes e-mail addresses from URLs, and more with the option `redact`. */

import { options } from './settings.js';

/** Replace the e-mail addresses in `text`. The length limit keeps the search fast on long texts. */
export const redactEmails = (text) => text.replace(/[\w.%+-]{1,64}(@|%40)[\w.-]+\.\w+/g, '[email]');

export const isString = (value) => typeof value == 'string';

/** Return a redacted JSON copy of a message. `everywhere` redacts e-mail addresses outside of URLs too. */
export const redactMessage = (message, everywhere) =>
  JSON.parse(
    JSON.stringify(message, (name, value) =>
      options.redact?.includes?.(name)
        ? undefined
        : isString(value) && (everywhere || /^(http|[/?#])/.test(value))
          ? redactEmails(value)
          : value,
    ),
  );
