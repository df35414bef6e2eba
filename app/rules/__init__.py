"""The rule language and its engine.

The rest of the application passes definitions as JSON and gets truths, computed traits and the instants at which they
change. How rules are parsed (``language``) and evaluated (``engine``) is hidden here. Pure: no I/O and no clock, so
instants and facts are arguments.
"""
