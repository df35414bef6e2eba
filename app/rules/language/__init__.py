"""Parser and validator of the rule language: JSON in; models out, or an error with the path of the node and a remedy.

A node of a rule is a JSON object with exactly one *head* key, such as ``did`` or ``all``; all other keys modify the
head. Hides how a rule is written: heads, modifiers, operators, durations, and references between
definitions. ``docs/rules.md`` describes the language.
"""
