/** The options that the page passed to `segue.load()`, on top of their defaults. */

export const options = {
  host: '', // the page's own host
  capture: { pages: true },
  personalize: true,
};
