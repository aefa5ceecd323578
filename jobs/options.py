"""Options that several jobs share."""

from typing import Literal

Layout = Literal["auto", "shards", "tar", "archive", "pairs", "voc", "camvid"]
