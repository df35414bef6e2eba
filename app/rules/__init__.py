"""The rule language and its engine.

The rest of the application passes definitions as JSON and gets truths, computed traits and the instants at which they
change. Hides how rules are parsed (``language``) and evaluated (``engine``). Pure: no I/O and no clock, so instants
and facts are arguments.
"""
