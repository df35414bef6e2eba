/** Hides: what the page has asked for. */

export const options = {
  host: '', // where the page itself lies
  capture: { pages: true },
  personalize: true,
};
