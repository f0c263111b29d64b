"""The studies that tools/claims.py knows by name."""

from vidloc.experiments import cofinetuning, localization
from vidloc.experiments.cofinetuning_study import Cofinetuning
from vidloc.experiments.localization_study import Localization
from vidloc.experiments.study import Study

STUDIES: dict[str, Study] = {
    'cofinetuning': Cofinetuning(cofinetuning.SETTING, cofinetuning.ARMS, cofinetuning.CLAIMS),
    'losa': Localization(localization.SETTING, localization.ARMS, localization.CLAIMS),
}
