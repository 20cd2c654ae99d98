"""What the server of `base/processes.py` imports for workers: all that trains, and its digest.

The digest is taken here, on import, as workers are copies: theirs must be that of the code they
have, whatever has been edited since the server started.
"""

import benchmark.stage.execute  # noqa: F401 - workers find it loaded
from benchmark.base.digest import science

science()
