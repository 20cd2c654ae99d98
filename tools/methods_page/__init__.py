"""docs/methods.md: what every method of configs/method is, declares and measurably does.

sources.py      what a method's module says of itself: paper, code, deviations
certificate.py  what the contract measures of a method, and where it declares exactness
page.py         the page, and whether a page is current
checkpoints.py  what each method can do to checkpoints of transformers, in docs/checkpoints.md
"""
