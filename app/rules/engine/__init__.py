"""Rule engine: compiles definitions, and evaluates them for one customer at one instant.

The engine is incremental. It does not read the customer's log of messages for each evaluation; it keeps a small state
for each customer and updates that with each message. Hides the compiled form of rules and the layout of that state.
The concepts, from the smallest to the largest:

- An *instant* is an integer: microseconds since 1970-01-01 UTC. ``t`` is the instant of an evaluation (the "now" of a
  rule) and ``p`` the instant of a touchpoint. An *interval* is half-open: [enter, leave).
- A *leaf* is the part of a node that is the same for all customers and instants: event names and filter. The projection
  asks once for each touchpoint which leaves match it. See :mod:`app.rules.engine.filters`.
- A *series* is the state of one leaf for one customer: a count, and only those instants, values and totals that some
  rule can still need. See :mod:`app.rules.engine.series`.
- A *window* maps the instant of a touchpoint to the interval of ``t`` in which the touchpoint is inside the window.
  See :mod:`app.rules.engine.window`.
- A *node* is a compiled head, such as ``did`` or ``all``. It answers two questions about ``t``: does it hold, and up to
  which instant does that certainly not change unless a message arrives (the *next check*, which may be too early).
  See :mod:`app.rules.engine.nodes.base`.
- A *rule* is a node with an id. It advances from check to check until its truth differs: that is its *next change*,
  exact to the microsecond.
- A *truth* is the stored result for one rule and one customer: whether it holds, since when, and until when.
- A *ruleset* is a compiled set of definitions. See :mod:`app.rules.engine.ruleset`.

The *fold* (:mod:`app.projection.fold`) applies messages and time to a customer's state. After a message it evaluates
only the rules that read a changed leaf or trait; between messages, only the rules whose next change is due. So the cost
of a message does not depend on the length of the log, and each stored truth is valid until its next change.

The current state is not enough in two cases. A rule about history ("held for 30 days", "ever a member") reads a *hidden
rule*: the compiler creates it, and the fold stores its truth like that of a segment. And if a series exceeds its size
limit, the customer is replayed from the log, which is slower but has the same result.
"""
