"""The settings of each command: one field = one flag = one line of run.json.

Parts of the system take plain arguments and never see these classes. Nothing here imports torch or
numpy, so that ``--help`` answers at once.
"""

from densenet121.config.audit import AuditConfig
from densenet121.config.augmentation import AugmentationSettings, effective
from densenet121.config.average import AverageConfig
from densenet121.config.bench import BenchConfig
from densenet121.config.calibrate import CalibrateConfig
from densenet121.config.card import CardConfig
from densenet121.config.compare import CompareConfig
from densenet121.config.convert import ConvertConfig, Target
from densenet121.config.demo import DemoConfig
from densenet121.config.eval import EvalConfig
from densenet121.config.export import ExportConfig
from densenet121.config.flags import Flag, flags_of
from densenet121.config.inspect import InspectConfig
from densenet121.config.lr_find import LrFindConfig
from densenet121.config.metrics import MetricsConfig
from densenet121.config.pack import PackConfig
from densenet121.config.predict import PredictConfig
from densenet121.config.probe import ProbeConfig
from densenet121.config.rank_table import RankTableConfig
from densenet121.config.report import ReportConfig
from densenet121.config.serve import ServeConfig
from densenet121.config.shared import (
    AMP_NAMES,
    Amp,
    Interpolation,
    Net,
    OnBadImage,
    Variant,
    settings_of,
    weights_choices,
)
from densenet121.config.show import ShowConfig
from densenet121.config.split import SplitConfig
from densenet121.config.study import StudyConfig, study_differences
from densenet121.config.train import FREE_ON_RESUME, TrainConfig, differences
from densenet121.config.values import (
    absolute,
    parse_image_size,
)
from densenet121.utils.cores import default_workers

__all__ = [
    "AMP_NAMES",
    "FREE_ON_RESUME",
    "Amp",
    "AuditConfig",
    "AugmentationSettings",
    "AverageConfig",
    "BenchConfig",
    "CalibrateConfig",
    "CardConfig",
    "CompareConfig",
    "ConvertConfig",
    "DemoConfig",
    "EvalConfig",
    "ExportConfig",
    "Flag",
    "InspectConfig",
    "Interpolation",
    "LrFindConfig",
    "MetricsConfig",
    "Net",
    "OnBadImage",
    "PackConfig",
    "PredictConfig",
    "ProbeConfig",
    "RankTableConfig",
    "ReportConfig",
    "ServeConfig",
    "ShowConfig",
    "SplitConfig",
    "StudyConfig",
    "Target",
    "TrainConfig",
    "Variant",
    "absolute",
    "default_workers",
    "differences",
    "effective",
    "flags_of",
    "parse_image_size",
    "settings_of",
    "study_differences",
    "weights_choices",
]
