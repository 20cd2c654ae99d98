"""What several suites say together: each part a pure function of their published folders.

`trend` reads a ladder of budgets, `regime` a map of target sizes, times and factors, `mixes` the
choices of a method that grows several sizes, `conventions` the same runs as other papers count,
`rounding` one suite trained twice. `pictures` draws them; `tools.findings` makes a page of them.
"""
