"""HTTP mechanics. Hides authentication, rate limits, body limits, cross-origin rules and the shape of errors."""
