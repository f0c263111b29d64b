"""The settings that the public code of ActionFormer leaves beside its weights: config.txt, a printed Python table.

happyharrycn/actionformer_release, train.py prints it; the part `model` is what the network is made of. Weights that are
called TAG_state_dict may have TAG_meta.json instead, with that part as `config`.
"""

import ast
import json
import os
import pathlib
from typing import Any

from vidloc.checkpoints.readers.weights import ReadError, unreadable

PRINTED, TAGGED = 'config.txt', '_state_dict'
LONGEST = 1 << 16  # bytes
_FIX = 'Put back the file that belongs to the weights, or move it away and give the settings yourself'


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], str] | None:
    """(the settings of the network, the name of their file) beside the weights at `path`; None without such a file.

    Raises ReadError for a file that is there and no table of settings.
    """
    path = pathlib.Path(path)
    stem = path.name.partition('.')[0]
    for name, part in ((f'{stem.removesuffix(TAGGED)}_meta.json', 'config'), (PRINTED, 'model')):
        place = path.parent / name
        if (part == 'config' and not stem.endswith(TAGGED)) or not place.is_file():
            continue
        try:
            with place.open(encoding='utf-8') as file:
                text = file.read(LONGEST + 1)
            if len(text) > LONGEST:
                raise ReadError(place, f'it is longer than {LONGEST} characters', _FIX)
            table = json.loads(text) if place.suffix == '.json' else ast.literal_eval(text)
        except OSError as error:
            raise unreadable(place, error) from error
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            if isinstance(error, ReadError):
                raise
            raise ReadError(place, f'it is no table of settings ({error})', _FIX) from error
        if not isinstance(table, dict) or not isinstance(table.get(part), dict):
            raise ReadError(place, f'it has no settings of a network ({part!r})', _FIX)
        return table[part], name
    return None
