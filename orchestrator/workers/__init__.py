"""Programs that do the heavy work, each a process of its own.

Set here, before torch loads its OpenMP runtime: threads that wait give their core back. By default they spin, and on a
machine that does anything else beside (2 cores, measured) a 4-bit layer then takes 14 ms instead of 0.2 ms.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
