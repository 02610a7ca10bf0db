"""The settings of each command."""

from densenet121.config.settings import *  # noqa: F403
