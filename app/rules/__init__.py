"""The rule language and the engine that evaluates it.

A rule is a JSON condition about one customer, such as ``{"did": "Order Completed", "within": "90d"}``. It defines a
segment, a stage of a journey, or (as a value expression) a computed trait. The package has three parts:

- ``language`` parses JSON into models and refuses invalid rules with the path of the node and a remedy.
- ``engine`` compiles the models. It decides whether a rule holds for a customer at an instant, and finds the next
  instant at which that changes although no message arrives.
- ``values`` has the arithmetic that both need: durations, calendars, exact numbers and patterns.

Hides how a rule is written and evaluated. The package does no I/O and reads no clock: callers pass the instant and the
state of the customer.
"""
