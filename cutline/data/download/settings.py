"""[data.steps.download]: how images are fetched."""

from __future__ import annotations

from pydantic import Field

from cutline.core.config import Section
from cutline.core.version import __version__


class DownloadSettings(Section):
    """[data.steps.download]"""

    connections: int = Field(default=64, ge=1, le=500, description="largest number of simultaneous requests")
    per_host: int = Field(default=16, ge=1, description="largest number of simultaneous requests to one host")
    connect_timeout_s: float = Field(default=10, gt=0, description="time to establish a connection, in s")
    read_timeout_s: float = Field(default=15, gt=0, description="longest time without data from the server, in s")
    timeout_s: float = Field(default=60, gt=0, description="time for one whole request, in s")
    max_bytes: int = Field(
        default=50_000_000,
        ge=1,
        description="largest file; a larger one is refused as soon as its size is known",
    )
    max_redirects: int = Field(default=5, ge=0, description="redirects followed for one URL")
    tries: int = Field(default=4, ge=1, description="attempts for one URL when the error may be temporary")
    backoff_s: float = Field(
        default=1, gt=0, description="pause before the second attempt, in s; doubles each time, with ±50 % jitter"
    )
    longest_wait_s: float = Field(
        default=120,
        ge=0,
        description="longest pause, in s; an image fails if its server asks for a longer one (Retry-After)",
    )
    stop_after: int = Field(
        default=200,
        ge=0,
        description="images that may fail in a row before the job stops; 0 never stops",
    )
    private: bool = Field(
        default=False,
        description="allow URLs in private networks and on this machine. Off by default, because a downloaded list "
        "could make this machine send requests inside your network",
    )
    opt_out: list[str] = Field(
        default=["noai", "noimageai", "noindex", "noimageindex", "tdm-reservation"],
        description="X-Robots-Tag directives by which a server keeps an image out, and the header TDM-Reservation; "
        "[] heeds none",
    )
    user_agent: str = Field(
        default=f"cutline/{__version__} (prepares captioned images)",
        description="User-Agent header of the requests; name a person or a page that can be contacted",
    )
    proxy: str = Field(
        default="",
        description="URL of a proxy; proxies from the environment are not used. The proxy then has to block "
        "private networks",
    )
    keep: bool = Field(
        default=False,
        description="keep the downloaded files in originals/, so that another resize needs no download",
    )
