"""The studies that tools/claims.py knows by name."""

from vidloc.experiments import cofinetuning, few_shot, localization
from vidloc.experiments.cofinetuning_study import Cofinetuning
from vidloc.experiments.few_shot_study import FewShot
from vidloc.experiments.localization_study import Localization
from vidloc.experiments.study import Study

STUDIES: dict[str, Study] = {
    'cofinetuning': Cofinetuning(cofinetuning.SETTING, cofinetuning.ARMS, cofinetuning.CLAIMS),
    'gra': FewShot(few_shot.SETTING, few_shot.ARMS, few_shot.CLAIMS),
    'losa': Localization(localization.SETTING, localization.ARMS, localization.CLAIMS),
}
