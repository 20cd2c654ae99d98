"""From records to a page: a pure function, without torch, that never trains.

`frames` makes records tidy; `controls`, `verdicts` and `moderation` judge; `conventions`, `tuning`,
`factors` and `tables` count; `leaks` doubts; `analysis` gathers. `formats`, `prose`,
`sections`, `warnings`, `markdown`, `drawing`, `plots` and `html` show; `files` writes and checks.
`compare` holds two folders against one another; `results` is for a reader's own analysis.
"""
