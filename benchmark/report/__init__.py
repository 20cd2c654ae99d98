"""From records to a page: a pure function, without torch, that never trains.

`frames` makes records tidy; `controls`, `verdicts` and `accounts` compare; `conventions`, `tuning`,
`factors` and `tables` count; `plan` and `leaks` doubt; `analysis` gathers. `formats`, `prose`,
`warnings`, `markdown`, `html` and `figures` show; `files` writes and checks.
"""
