"""The settings of each command."""

from densenet121.config.audit import *  # noqa: F403
from densenet121.config.deploy import *  # noqa: F403
from densenet121.config.settings import *  # noqa: F403
