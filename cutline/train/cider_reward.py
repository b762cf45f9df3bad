"""CIDEr-D of single captions, as a reward while training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from cutline.core.records import Sample
