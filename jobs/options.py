"""Options that several jobs share."""

from typing import Literal

from pipelines import sources

Layout = Literal["auto", sources.Layout]
