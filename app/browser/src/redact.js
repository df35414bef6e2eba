/** Hides: what must not leave the page. E-mail addresses in URLs never do; the option `redact` says what else. */

import { options } from './settings.js';

/** `text` without e-mail addresses; the bounds keep a long text without one cheap. */
export const hideEmails = (text) => text.replace(/[\w.%+-]{1,64}(@|%40)[\w.-]+\.\w+/g, '[email]');

export const isText = (value) => typeof value == 'string';

/** A copy of a message as JSON has it, clean. `everywhere`: also of addresses that stand outside of URLs. */
export const clean = (message, everywhere) =>
  JSON.parse(
    JSON.stringify(message, (name, value) =>
      options.redact?.includes?.(name)
        ? undefined
        : isText(value) && (everywhere || /^(http|[/?#])/.test(value))
          ? hideEmails(value)
          : value,
    ),
  );
