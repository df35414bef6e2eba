"""HTTP layer. Hides authentication, rate limits, body limits, cross-origin rules and the error format."""
