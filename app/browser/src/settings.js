/** Options of `segue.load()` with their defaults. */

export const options = {
  host: '', // the page's own host
  capture: { pages: true },
  personalize: true,
};
